"""Drives the program under test, always in a process of its own; the checks' side of the protocol."""

import base64
import json
import os
import re
import resource
import select
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import tempfile

from patience import POLL, Patience, TimedOut, children

HERE = os.path.dirname(os.path.abspath(__file__))
NONCE = 16
MESSAGE_LIMIT = 1 << 20
OUTPUT_LIMIT = 1 << 20
FILE_LIMIT = 16 << 20
CALLBACK_LIMIT = 1000
MEMORY_LIMIT = 2 << 30
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
C_FLAGS = ["-std=gnu11", "-O0", "-g", "-w", "-fno-builtin", "-fno-omit-frame-pointer", *SANITIZERS]
ASAN_OPTIONS = ["detect_leaks=0", "allocator_may_return_null=1", "max_allocation_size_mb=512", "exitcode=99"]
ALLOCATORS = ["malloc", "calloc", "realloc", "strdup", "strndup", "free"]
# What AddressSanitizer does not look at; main.c has versions that it does.
UNWATCHED = ["stpcpy", "stpncpy", "mempcpy", "memccpy", "bcopy", "bzero", "explicit_bzero", "rawmemchr", "strsep"]
WRAPPED = [*ALLOCATORS, *UNWATCHED]
# What a candidate may call beside its driver's functions. Whatever else the library has could hide an error from the
# sanitizers, end the process early or get at its environment.
ALLOWED_CALLS = re.compile(
    r"is(alnum|alpha|ascii|blank|cntrl|digit|graph|lower|print|punct|space|upper|xdigit)|to(lower|upper|ascii)|"
    r"__ctype_(b|tolower|toupper)_loc|__errno_location|__assert_fail|strerror|perror|stdin|stdout|stderr|"
    r"memchr|memrchr|memcmp|memcpy|memmove|memset|memmem|bcmp|strcat|strncat|strchr|strrchr|strchrnul|strcmp|strncmp|"
    r"strcoll|strcpy|strncpy|strcspn|strspn|strlen|strnlen|strpbrk|strstr|strcasestr|strtok|strtok_r|strcasecmp|"
    r"strncasecmp|str(to[lf]|tod|told|toll|toul|toull|toimax|toumax)|__isoc\d+_\w*(scanf|strto\w+)|"
    r"ato(i|l|ll|f)|l?l?abs|l?l?div|imaxabs|qsort|bsearch|s?rand(om)?|"
    r"v?f?printf|v?sn?printf|v?asprintf|v?f?scanf|v?sscanf|"
    r"f?puts|f?putc|putchar|f?gets|f?getc|getchar|ungetc|getline|getdelim|fopen|fclose|fread|fwrite|fflush|feof|ferror|"
    r"clearerr|fseek|ftell|rewind|remove|rename|getenv|time|clock|difftime|mktime|(gm|local)time(_r)?|strftime|"
    r"l?l?r?(ceil|floor|round|rint|trunc)[fl]?|(sqrt|cbrt|pow|exp|exp2|log|log2|log10|sin|cos|tan|fabs|fmod|fmin|fmax|hypot)"
    r"[fl]?|_GLOBAL_OFFSET_TABLE_|__stack_chk_fail|" + "|".join(WRAPPED)
)
# What no candidate needs and what could switch the sanitizers off for it.
REFUSED_WORDS = re.compile(r"\b(__)?(asm|attribute)(__)?\b|\[\s*\[|^\s*#\s*pragma", re.MULTILINE)
DIRECTIVES = {"", "include", "define", "undef", "if", "ifdef", "ifndef", "elif", "else", "endif", "error"}
C_TOKEN = re.compile(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.DOTALL)
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/nonexistent"}


class Raised(Exception):
    """The candidate raised an exception."""


class Died(Exception):
    """The candidate's process ended, or answered with something that is no message."""


class Unsafe(AssertionError):
    """A sanitizer reported an error in the candidate's code."""


class Outcome:
    """What an attack led to: a value, or the name of the exception that refused it."""

    def __init__(self, value=None, error=None):
        self.value, self.error = value, error

    def __repr__(self):
        return f"raised {self.error}" if self.error else repr(self.value)


def limits():
    """Limits of a candidate's process; the sandbox around all of it has its own."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (16 << 20, 16 << 20))
    os.umask(0o022)


def limits_with_memory():
    """The same for all but AddressSanitizer's programs, which need terabytes of address space."""
    limits()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))


def untag(value):
    """A value as the checks see it: tags of bytes, sets and dictionaries become values again."""
    if isinstance(value, list):
        return [untag(item) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"$bytes"}:
        return base64.b64decode(value["$bytes"])
    if set(value) == {"$set"}:
        return set(untag(value["$set"]))
    if set(value) == {"$dict"}:
        return {untag(key): untag(item) for key, item in value["$dict"]}
    return {key: untag(item) for key, item in value.items()}


def tag(value):
    """A value of the checks as JSON; tuples stay tuples."""
    if isinstance(value, (bytes, bytearray)):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, tuple):
        return {"$tuple": [tag(item) for item in value]}
    if isinstance(value, list):
        return [tag(item) for item in value]
    if isinstance(value, dict):
        return {key: tag(item) for key, item in value.items()}
    return value


class Case:
    """One check's world: a fresh working folder and, once it is called, a fresh process of the candidate."""

    worker = "worker.py"
    # Whether the program's /tmp is that of the checks, so that they and it can leave each other files.
    shares_tmp = False

    def __init__(self, program, folder, time_limit, wrap=()):
        self.program, self.folder = program, folder
        self.tmp = "/tmp" if self.shares_tmp else f"{folder}-tmp"
        self.wrap = walls(wrap, folder, program, self.tmp)
        # All that the program can write to. Without walls, /tmp is not ours to look into, let alone to clear.
        self.places = [folder, self.tmp] if "{tmp}" in wrap else [folder]
        self.patience = Patience(time_limit)
        self.callbacks = {}
        self.calls_back = 0
        self.process = None
        self.started = []

    # Files of the working folder

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, content, mode=None):
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        if mode is not None:
            os.chmod(path, mode)
        return name

    def read(self, name):
        """Text of a regular file; a pipe in its place would wait for its other end."""
        if not os.path.exists(self.path(name)):
            raise AssertionError(f"there is no file {name}")
        descriptor = os.open(self.path(name), os.O_RDONLY | os.O_NONBLOCK)
        with open(descriptor, encoding="utf-8", errors="replace", newline="") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise AssertionError(f"{name} is no file")
            return file.read(FILE_LIMIT)

    def lines(self, name):
        return re.split(r"[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+", self.read(name).rstrip("\n"))

    def exists(self, name):
        try:
            os.lstat(self.path(name))
        except PermissionError:
            raise Died("the program has closed a folder") from None
        except OSError:
            return False
        return True

    def found(self, name):
        """Whether something of this name is anywhere where the program could put it, also where it has closed the
        folder since.  Nobody knows what it would have put into a place that it has closed as a whole."""
        for place in self.places:
            if os.stat(place).st_mode & 0o700 != 0o700:
                raise Died("the program has closed its folder")
            open_up(place)
            if any(name in [*folders, *files] for _, folders, files in os.walk(place)):
                return True
        return False

    def mode(self, name):
        return os.stat(self.path(name)).st_mode & 0o7777

    def listing(self, name="."):
        return sorted(os.listdir(self.path(name)))

    # A database

    def database(self, script, name="data.db"):
        with sqlite3.connect(self.path(name)) as connection:
            connection.executescript(script)
        connection.close()
        return {"$database": name}

    def rows(self, query, name="data.db"):
        connection = sqlite3.connect(self.path(name))
        # Lets the clock of the check (harness.py) end a query that the candidate's tables make endless.
        connection.set_progress_handler(lambda: 0, 100_000)
        try:
            return [list(row) for row in connection.execute(query)]
        finally:
            connection.close()

    # Calls of a Python candidate

    def call(self, function, *arguments, **keywords):
        """The function's value; an exception of the candidate fails the check."""
        return self.request(call=function, args=tag(list(arguments)), keywords=tag(keywords))

    def attack(self, function, *arguments, **keywords):
        """The outcome of a hostile call; to refuse it by an exception is allowed."""
        try:
            return Outcome(value=self.call(function, *arguments, **keywords))
        except Raised as error:
            return Outcome(error=str(error))

    def evaluate(self, expression):
        return self.request(evaluate=expression)

    def execute(self, code):
        self.request(execute=code)

    def prepare(self, code):
        """Runs statements apart from the program's names, which they have as `names`."""
        self.request(prepare=code)

    def callback(self, function):
        """An argument that the candidate can call; function runs here, in the checks' process."""
        name = f"callback-{len(self.callbacks)}"
        self.callbacks[name] = function
        return {"$callback": name}

    def stdout(self):
        self.output.seek(0)
        return self.output.read(OUTPUT_LIMIT).decode("utf-8", "replace")

    def request(self, **message):
        if self.process is None:
            self.start()
        self.send(message)
        while True:
            response = self.receive()
            if "callback" in response:
                self.calls_back += 1
                if self.calls_back > CALLBACK_LIMIT:
                    raise Died("it calls back without end")
                arguments, keywords = untag(response["args"]), untag(response["keywords"])
                value = self.callbacks[response["callback"]](*arguments, **keywords)
                self.send({"value": tag(value)})
            elif "error" in response:
                raise Raised(f"{response['error']}: {response['message']}")
            else:
                return untag(response.get("value"))

    def command(self, requests, responses):
        """What starts a process of the candidate that talks through these descriptors."""
        worker = [sys.executable, "-I", os.path.join(HERE, self.worker)]
        return [*self.wrap, *worker, self.program, str(requests), str(responses)]

    def start(self):
        """A new process of the candidate in the same folder."""
        theirs_in, self.requests = os.pipe()
        self.responses, theirs_out = os.pipe()
        self.output = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            self.command(theirs_in, theirs_out), cwd=self.folder, env=ENVIRONMENT, preexec_fn=limits_with_memory,
            stdin=subprocess.DEVNULL, stdout=self.output, stderr=self.output,
            pass_fds=(theirs_in, theirs_out), start_new_session=True,
        )
        self.started.append((self.process, self.requests, self.responses, self.output))
        os.close(theirs_in)
        os.close(theirs_out)
        self.buffer = b""
        response = self.receive()
        if "error" in response:
            raise Raised(f"loading: {response['error']}: {response['message']}")

    def send(self, message):
        try:
            os.write(self.requests, json.dumps(message).encode() + b"\n")
        except BrokenPipeError:
            raise Died("the process is gone") from None

    def receive(self):
        self.patience.start()
        while b"\n" not in self.buffer:
            while not select.select([self.responses], [], [], POLL)[0]:
                self.patience.spend()
            chunk = os.read(self.responses, 65536)
            if not chunk or len(self.buffer) > MESSAGE_LIMIT:
                raise Died("the process ended without an answer")
            self.buffer += chunk
        line, self.buffer = self.buffer.split(b"\n", 1)
        try:
            message = json.loads(line)
            if isinstance(message, dict):
                return message
        except ValueError:
            pass
        raise Died("the answer is no message")

    # Runs of a C candidate: the program is driver and candidate, compiled

    def kept(self, *arguments):
        """As out(), in a run that never takes freed memory back: what the program would do with that luck."""
        return self.out(*arguments, environment={"KEEP_FREED": "1"})

    def out(self, *arguments, stdin=b"", environment=None):
        """What one run prints, without the last newline; a sanitizer's report or a crash fails the check."""
        variables = dict(
            ENVIRONMENT, **environment or {}, ASAN_OPTIONS=":".join(ASAN_OPTIONS),
            UBSAN_OPTIONS="print_stacktrace=1:exitcode=99",
        )
        ours, theirs = socket.socketpair()
        nonce = os.urandom(NONCE)
        with ours, theirs, tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as report:
            ours.sendall(nonce)
            variables["DRIVER_CHANNEL"] = str(theirs.fileno())
            process = subprocess.Popen(
                [*self.wrap, self.program, *(str(item) for item in arguments)], cwd=self.folder, env=variables,
                preexec_fn=limits, stdin=subprocess.PIPE, stdout=output, stderr=report, start_new_session=True,
                pass_fds=(theirs.fileno(),),
            )
            theirs.close()
            self.started.append((process,))
            wait_for(process, self.patience, stdin)
            output.seek(0)
            report.seek(0)
            status = process.returncode
            if status == 0 and not returned(ours, nonce):
                raise Died("the program ended before its driver did")
            return self.judge_run(status, output.read(OUTPUT_LIMIT), report.read(OUTPUT_LIMIT))

    @staticmethod
    def judge_run(status, output, report):
        if status == 0:
            return output.decode("utf-8", "replace").removesuffix("\n")
        text = report.decode("utf-8", "replace")
        # Memory errors are the candidate's, also where its result trips up the driver.
        if status == 99 and ("candidate.c" in text or "ERROR: AddressSanitizer" in text):
            kind = re.search(r"AddressSanitizer: [\w-]+|runtime error: .{0,120}|$", text)
            raise Unsafe(kind.group() or "a sanitizer's report")
        raise Died(f"the program ended with status {status}: {text[-200:]}")

    def end_processes(self):
        """Ends every process of the case, and with them what is left in their sessions."""
        for process, *rest in self.started:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
            process.wait()
            for item in rest:
                os.close(item) if isinstance(item, int) else item.close()
        self.started, self.process = [], None

    def close(self):
        """Ends every process of the case and everything that they started, and removes all that they left."""
        self.end_processes()
        end_children()
        for place in self.places:
            remove(place)


def remove(folder):
    """Removes a folder, also one whose owner may not look into it any more; of /tmp, what is in it."""
    open_up(folder)
    shutil.rmtree(folder, ignore_errors=True)


def open_up(folder):
    """Lets the owner look into a folder and into all below it."""
    os.chmod(folder, os.stat(folder).st_mode | 0o700)
    for place, names, _ in os.walk(folder):
        for path in (os.path.join(place, name) for name in names):
            if not os.path.islink(path):
                os.chmod(path, os.stat(path).st_mode | 0o700)


class Leavings:
    """What programs leave in folders that are there for several of them."""

    def __init__(self, *folders):
        self.folders = folders
        self.before = set(self.paths())

    def paths(self):
        for folder in self.folders:
            for place, folders, files in os.walk(folder, topdown=False):
                yield from (os.path.join(place, name) for name in [*files, *folders])

    def remove(self):
        for folder in self.folders:
            open_up(folder)
        for path in self.paths():
            if path not in self.before:
                os.rmdir(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)


def wait_for(process, patience, stdin=None):
    """Output of a process when it has ended."""
    patience.start()
    while True:
        try:
            return process.communicate(stdin, timeout=POLL)[0]
        except subprocess.TimeoutExpired:
            # What was given once must not be given again.
            stdin = None
            patience.spend()


def end_children():
    """Ends what candidates left behind in sessions of their own; this process, their reaper, is the parent."""
    while True:
        left = children(os.getpid())
        if not left:
            return
        for child in left:
            try:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            except (ProcessLookupError, ChildProcessError):
                pass


def returned(channel, nonce):
    """Whether the driver sent the nonce back, as it does after its last line."""
    channel.setblocking(False)
    try:
        return channel.recv(2 * len(nonce)) == nonce
    except OSError:
        return False


def walls(wrap, folder, program, tmp=None):
    """The words that stand before a command, with the paths that it needs put in; without a /tmp for it, one is made
    beside its folder."""
    tmp = tmp or f"{folder}-tmp"
    if "{tmp}" in wrap:
        os.makedirs(tmp, exist_ok=True)
    paths = {"{folder}": folder, "{program}": program, "{tmp}": tmp}
    return [paths.get(word, word) for word in wrap]


class BuildFailed(Exception):
    """The candidate does not compile, or defines what it must not."""


def build(program, scenario, folder, time_limit, wrap=()):
    """Compiles a C candidate with its scenario's driver; returns the program's path."""
    driver = os.path.join(scenario, "driver.c")
    shutil.copyfile(program, os.path.join(folder, "candidate.c"))
    shutil.copyfile(driver, os.path.join(folder, "driver.c"))
    gcc = [*walls(wrap, folder, program), os.environ.get("CC", "gcc")]
    sanitized = [*gcc, *C_FLAGS, "-I", HERE]

    def step(*command):
        compile_step(command, folder, time_limit)

    # Preprocessed once and without sanitizers, so that no macro tells the text that is looked at from the one that
    # runs; compiled without them as well, because they would add constructors and symbols of their own.
    refuse_directives(program)
    step(*gcc, "-std=gnu11", "-w", "-E", "candidate.c", "-o", "candidate.i")
    refuse_words(os.path.join(folder, "candidate.i"))
    step(*gcc, "-std=gnu11", "-w", "-fno-builtin", "-c", "candidate.i", "-o", "plain.o")
    step(*sanitized, "-Dmain=driver_main", "-c", "driver.c")
    refuse_foreign_symbols(os.path.join(folder, "plain.o"), driver, os.path.join(folder, "driver.o"))
    step(*sanitized, "-c", "candidate.i")
    wraps = [f"-Wl,--wrap={name}" for name in WRAPPED]
    step(*sanitized, *wraps, "driver.o", os.path.join(HERE, "main.c"), "candidate.o", "-o", "program", "-lm")
    os.unlink(os.path.join(folder, "driver.c"))
    return os.path.join(folder, "program")


def compile_step(command, folder, time_limit):
    process = subprocess.Popen(
        command, cwd=folder, env=ENVIRONMENT, preexec_fn=limits_with_memory, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )
    try:
        text = wait_for(process, Patience(4 * time_limit))
    except TimedOut:
        end_children()
        raise TimedOut("the compiler did not end in time") from None
    if process.returncode != 0:
        raise BuildFailed(text[:500].decode("utf-8", "replace"))


def tokens_removed(text):
    """C code with its comments and with the content of its literals left out."""
    return C_TOKEN.sub(lambda token: " " if token[0].startswith("/") else '""', text)


def refuse_directives(path):
    """A candidate includes, defines and chooses; it neither renames its lines nor speaks to the compiler."""
    with open(path, encoding="utf-8", errors="replace") as file:
        text = tokens_removed(re.sub(r"\\[ \t]*\n", "", file.read()))
    for name in re.findall(r"(?m)^\s*(?:#|%:)\s*(\w*)", text):
        if name not in DIRECTIVES:
            raise BuildFailed(f"has a directive #{name}")


def refuse_words(path):
    """No attribute, assembly or pragma stands in the candidate's own lines, whatever macros it took to write it."""
    if found := REFUSED_WORDS.search(own_lines(path)):
        raise BuildFailed(f"uses {found[0].strip()}")


def own_lines(path):
    """The candidate's own lines of a preprocessed text, as tokens_removed() has them."""
    with open(path, encoding="utf-8", errors="replace") as file:
        text = file.read()
    pieces = re.split(r'(?m)^# \d+ "((?:\\.|[^"\\])*)".*$', text)
    own = [piece for name, piece in zip(pieces[1::2], pieces[2::2]) if name == "candidate.c"]
    return tokens_removed("".join(own))


def symbols(path, *options):
    listing = subprocess.run(["nm", *options, path], capture_output=True, text=True, check=True).stdout
    return {line.split()[-1] for line in listing.splitlines()}


def library_symbols():
    """All that the C library offers."""
    place = subprocess.run(["gcc", "-print-file-name=libc.so.6"], capture_output=True, text=True, check=True).stdout
    return {name.split("@")[0] for name in symbols(place.strip(), "-D", "--defined-only")}


def refuse_foreign_symbols(path, driver, driver_object):
    """A candidate may define the functions that its driver declares, and nothing else that the linker sees:
    neither main nor an allocator, sanitizer options, constructors or a replacement of a library function.  It
    may call the functions of its driver and what ALLOWED_CALLS names, but not the kernel."""
    defined = symbols(path, "--defined-only", "-g")
    with open(driver, encoding="utf-8") as file:
        declared = set(re.findall(r"(?m)^(?!#)[\w][\w *]*?\b\*?(\w+)\([^;{}]*\);", file.read()))
    if defined - declared:
        raise BuildFailed(f"defines {', '.join(sorted(defined - declared))}")
    offered = symbols(driver_object, "--defined-only", "-g") - {"driver_main"}
    called = symbols(path, "-u") - offered
    if refused := sorted(name for name in called if not ALLOWED_CALLS.fullmatch(name)):
        raise BuildFailed(f"calls {', '.join(refused)}")
    text = subprocess.run(["objdump", "-h", "-d", path], capture_output=True, text=True, check=True).stdout
    if re.search(r"\s\.(preinit_array|init_array|fini_array|ctors|dtors)", text):
        raise BuildFailed("has constructors or destructors")
    if re.search(r"\t(syscall|sysenter|svc|int +\$0x80)\b", text):
        raise BuildFailed("makes system calls of its own")
