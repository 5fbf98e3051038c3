"""Judges one program on one of DeepGuard's scenarios, by functional and security checks of our own.

    python3 harness.py --scenario DIR --program FILE --work DIR [--result-fd N] [--wrap WORD]...

The set's own unit tests run in the candidate's process and look at calls of mocked functions; these here look at
what the program did.  Flask applications are visited in a process of the candidate, C programs are built with
sanitizers and run with hostile arguments and input.
"""

import json
import os
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import candidate  # noqa: E402
import deepguard_checks  # noqa: E402
import protocol  # noqa: E402
import scenario_harness as base  # noqa: E402

PLAIN = "-plain"
ASAN_OPTIONS = [*candidate.ASAN_OPTIONS, "halt_on_error=1", "handle_segv=2", "handle_abort=0"]
STUBS = os.path.join(HERE, "deepguard_stubs.c")
WRAPPED = ["malloc", "calloc", "realloc", "rand", "random"]
REFUSED_CALLS = re.compile(
    r"__(asan|sanitizer|ubsan|lsan|wrap|real)_.*|_exit|_Exit|quick_exit|at_quick_exit|atexit|on_exit|syscall|v?fork|clone|"
    r"exec\w+|posix_spawnp?|system|popen|dl\w+|mprotect|ptrace|prctl|kill|raise|signal|sigaction|setenv|unsetenv|"
    r"putenv|environ|__environ"
)
# Commands that a program may start, which only note how they were called.
COMMANDS = ["ping", "id", "finger", "getent", "who", "w", "last", "whoami", "groups", "net", "lastlog", "users"]
VISIT = """
def _visit(path, query, form, session):
    app.config.update(SECRET_KEY="key", TESTING=False)
    client = app.test_client()
    if session:
        with client.session_transaction() as stored:
            stored.update(session)
    answer = client.get(path, query_string=query) if form is None else client.post(path, data=form)
    return [answer.status_code, answer.headers.get("Location"), answer.get_data().decode("utf-8", "replace")]
"""


class Web(candidate.Case):
    """A Python program in a folder of its own, with the places that the prompts name."""

    shares_tmp = True

    def __init__(self, program, folder, time_limit, wrap=()):
        for name in ("safe", "images", "bin"):
            os.makedirs(os.path.join(folder, name))
        passwd = os.path.join(folder, "passwd")
        with open(passwd, "w") as file:
            file.write("root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000:Alice:/home/alice:/bin/sh\n")
        places = [("safe", "/safe"), ("images", "/images"), ("passwd", "/etc/passwd")]
        binds = [word for name, place in places for word in ("--bind", os.path.join(folder, name), place)]
        wrap = list(wrap)
        if "--remount-ro" in wrap:
            at = wrap.index("--remount-ro")
            wrap[at:at] = binds
        super().__init__(program, folder, time_limit, wrap)
        for name in COMMANDS:
            self.write(f"bin/{name}", f'#!/bin/sh\necho "{name} $*" >> {folder}/commands\necho output\n', 0o755)
        self.can_visit = False
        candidate.ENVIRONMENT["PATH"] = f"{folder}/bin:/usr/local/bin:/usr/bin:/bin"

    def visit(self, path, query=None, form=None, session=None):
        """(status, location, text) of a page."""
        if not self.can_visit:
            self.execute(VISIT)
            self.can_visit = True
        answer = self.evaluate(f"_visit({path!r}, {query or {}!r}, {form!r}, {session!r})")
        if not (isinstance(answer, list) and len(answer) == 3):
            raise candidate.Died("the page is no page")
        return answer

    def commands(self):
        return self.read("commands") if self.exists("commands") else ""


class Native(candidate.Case):
    """A C program with its own main, built twice: as it is, and with sanitizers."""

    def __init__(self, program, folder, time_limit, wrap=()):
        super().__init__(program, folder, time_limit, wrap)
        self.plain = program + PLAIN
        self.plain_wrap = candidate.walls(wrap, folder, self.plain)

    def run(self, *arguments, stdin=b"", **variables):
        """What a run without sanitizers prints: the program as it works as long as it is lucky."""
        status, output, report = self.launch([*self.plain_wrap, self.plain, *arguments], stdin, 0o022, variables)
        if ended_by_signal(status):
            raise candidate.Died(f"the program ended with status {status}: {report[-200:]}")
        return output

    def attack(self, *arguments, stdin=b"", umask=0o022, **variables):
        """What a run with sanitizers prints; a report of one fails the check."""
        status, output, report = self.launch([*self.wrap, self.program, *arguments], stdin, umask, variables)
        if "candidate.c" in report and re.search(r"Sanitizer|runtime error", report):
            kind = re.search(r"AddressSanitizer: [\w-]+|runtime error: .{0,120}|$", report)
            raise candidate.Unsafe(kind.group() or "a sanitizer's report")
        if status == 99 or ended_by_signal(status):
            raise candidate.Died(f"the program ended with status {status}: {report[-200:]}")
        return output

    def launch(self, command, stdin, umask, variables):
        """(status, output, report) of one run."""
        def prepare():
            candidate.limits()
            os.umask(umask)

        # The same for both programs, which could tell themselves apart by it.
        variables.update(ASAN_OPTIONS=":".join(ASAN_OPTIONS), UBSAN_OPTIONS="print_stacktrace=1:exitcode=99")
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as report:
            process = subprocess.Popen(
                [str(word) for word in command], cwd=self.folder, env=dict(candidate.ENVIRONMENT, **variables),
                preexec_fn=prepare, stdin=subprocess.PIPE, stdout=output, stderr=report, start_new_session=True,
            )
            self.started.append((process,))
            candidate.wait_for(process, self.patience, stdin)
            texts = []
            for file in (output, report):
                file.seek(0)
                texts.append(file.read(candidate.OUTPUT_LIMIT).decode("utf-8", "replace"))
            return process.returncode, *texts


def ended_by_signal(status):
    """Whether a signal ended the program, or within bubblewrap, which tells by its own status."""
    return status < 0 or status > 128


def build(program, work, time_limit, wrap):
    folder = os.path.join(work, "build")
    os.mkdir(folder)
    with open(program, encoding="utf-8") as file:
        text = file.read()
    for name, content in (("candidate.c", text), ("stubs.c", open(STUBS, encoding="utf-8").read())):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(content)
    candidate.refuse_directives(program)
    gcc = [*candidate.walls(wrap, folder, program), "gcc"]

    def step(*command):
        candidate.compile_step(command, folder, time_limit)

    # One text for both programs, so that no macro tells them apart.
    step(*gcc, "-std=gnu11", "-w", "-E", "candidate.c", "-o", "candidate.i")
    candidate.refuse_words(os.path.join(folder, "candidate.i"))
    step(*gcc, "-std=gnu11", "-w", "-fno-builtin", "-fno-stack-protector", "-c", "candidate.i", "-o", "plain.o")
    refuse_symbols(os.path.join(folder, "plain.o"))
    step(*gcc, *candidate.C_FLAGS, "-c", "candidate.i")
    step(*gcc, "-w", "-c", "stubs.c")
    wraps = [f"-Wl,--wrap={name}" for name in WRAPPED]
    step(*gcc, *candidate.C_FLAGS, *wraps, "candidate.o", "stubs.o", "-o", "program", "-lm")
    step(*gcc, "-fno-stack-protector", *wraps, "plain.o", "stubs.o", "-o", "program" + PLAIN, "-lm")
    return os.path.join(folder, "program")


def refuse_symbols(path):
    """No library function of its own, no sanitizers' interface, no constructors, no system calls."""
    defined = candidate.symbols(path, "--defined-only", "-g")
    undefined = candidate.symbols(path, "-u")
    ours = {"getMonthlySales"}
    refused = defined & (candidate.library_symbols() | ours)
    refused |= {name for name in defined | undefined if REFUSED_CALLS.fullmatch(name)}
    if refused:
        raise candidate.BuildFailed(f"defines or calls {', '.join(sorted(refused))}")
    sections = subprocess.run(["objdump", "-h", path], capture_output=True, text=True, check=True).stdout
    if re.search(r"\s\.(preinit_array|init_array|fini_array|ctors|dtors)", sections):
        raise candidate.BuildFailed("has constructors or destructors")


def main(argv):
    arguments = protocol.arguments(argv, __doc__)
    protocol.harden()
    report = protocol.reporter(arguments.result_fd)
    with open(os.path.join(arguments.scenario, "meta.json"), encoding="utf-8") as file:
        meta = json.load(file)
    checks = deepguard_checks.of(meta["id"])
    is_c = meta["language"] == "c"
    base.judge(meta, checks, arguments, report, Native if is_c else Web, build if is_c else None)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
