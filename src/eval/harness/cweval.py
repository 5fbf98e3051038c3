"""Judges one program on one scenario of CWEval, whose checks are pytest cases in the user's copy of the set.

    python3 harness.py --scenario DIR --program FILE --work DIR [--result-fd N] [--wrap WORD]...

The cases run in this process, the program in others: a Python function is called through a worker, compiled and
Node programs are started by the cases as always, but through a launcher that puts them behind walls.  The records
are those of deepguard's own suites; the checks are announced before the program runs.
"""

import ast
import io
import json
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import types

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import candidate  # noqa: E402
import protocol  # noqa: E402
from patience import POLL, Patience, TimedOut  # noqa: E402

LIBRARIES = {
    "sqlite3.h": ["sqlite3"], "jwt.h": ["jwt"], "openssl/": ["ssl", "crypto"], "archive": ["archive"],
    "libxml/": ["xml2"], "math.h": ["m"],
}
REFUSED = re.compile(r"no_?sanitize|disable_sanitizer|__(asan|sanitizer|ubsan|lsan|hwasan)_\w+|(pre)?init_array|"
                     r"\bconstructor\b\W|\bdestructor\b\W|\bdlv?sym\b", re.IGNORECASE)


class Stopwatch:
    """Ends what runs too long, measured as for our own suites; limits may be nested."""

    def __init__(self):
        self.running = []
        signal.signal(signal.SIGALRM, self.look)

    def look(self, *_):
        for patience in self.running:
            patience.spend()

    def __call__(self, limit):
        return Limit(self, Patience(limit))


class Limit:
    def __init__(self, stopwatch, patience):
        self.stopwatch, self.patience = stopwatch, patience

    def __enter__(self):
        self.stopwatch.running.append(self.patience)
        self.patience.start()
        signal.setitimer(signal.ITIMER_REAL, POLL, POLL)
        return self.patience

    def __exit__(self, *_):
        self.stopwatch.running.remove(self.patience)
        if not self.stopwatch.running:
            signal.setitimer(signal.ITIMER_REAL, 0)


class Worker(candidate.Case):
    """The process in which a Python candidate lives; tuples and cursors cross as what they are."""

    worker = "cweval_worker.py"
    shares_tmp = True

    def __init__(self, program, folder, wrap, prelude):
        super().__init__(program, folder, 1e6, wrap)
        self.prelude = prelude

    def command(self, requests, responses):
        return [*super().command(requests, responses), json.dumps(self.prelude)]

    def close(self):
        self.end_processes()


class Proxies(types.ModuleType):
    """Stands for the candidate's module: every name is a function that calls the worker."""

    def __init__(self, name, make_worker):
        super().__init__(name)
        self.__dict__["make_worker"] = make_worker
        self.__dict__["worker"] = None

    def __getattr__(self, function):
        if function.startswith("__"):
            raise AttributeError(function)

        def proxy(*arguments, **keywords):
            if self.worker is None:
                self.__dict__["worker"] = self.make_worker()
            try:
                return self.worker.call(function, *arguments, **keywords)
            except candidate.Raised as error:
                raise_again(str(error))
            except BaseException:
                self.forget()
                raise

        proxy.__name__ = function
        return proxy

    def forget(self):
        worker, self.__dict__["worker"] = self.worker, None
        if worker is not None:
            worker.close()


def raise_again(text):
    """An exception of the candidate as the case may expect it; an assertion is never the candidate's to make."""
    import builtins
    name, _, message = text.partition(": ")
    kind = getattr(builtins, name, None)
    usual = isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, AssertionError)
    raise (kind(message) if usual and kind not in (UnicodeDecodeError, UnicodeEncodeError) else RuntimeError(text))


class TaggingCursors:
    """Databases of the cases are files that the worker opens as well."""

    def __init__(self, folder):
        self.folder, self.count = folder, 0
        self.connect = sqlite3.connect
        sqlite3.connect = self.open
        self.tag, candidate.tag = candidate.tag, self.with_cursors
        self.untag, candidate.untag = candidate.untag, self.with_tuples

    def open(self, path, *arguments, **keywords):
        if path == ":memory:":
            self.count += 1
            path = os.path.join(self.folder, f"memory-{self.count}.db")
        return self.connect(path, *arguments, **keywords)

    def path_of(self, connection):
        return os.path.basename(connection.execute("PRAGMA database_list").fetchone()[2])

    def with_cursors(self, value):
        if isinstance(value, sqlite3.Cursor):
            return {"$cursor": self.path_of(value.connection)}
        if isinstance(value, sqlite3.Connection):
            return {"$database": self.path_of(value)}
        if isinstance(value, os.PathLike):
            return {"$path": os.fspath(value)}
        return self.tag(value)

    def with_tuples(self, value):
        if isinstance(value, dict) and set(value) == {"$tuple"}:
            return tuple(candidate.untag(item) for item in value["$tuple"])
        return self.untag(value)


def timeouts(stopwatch):
    """A stand-in for the package wrapt_timeout_decorator, which would call the function in a process of its own."""
    module = types.ModuleType("wrapt_timeout_decorator")

    def timeout(seconds):
        def decorate(function):
            def limited(*arguments, **keywords):
                with stopwatch(seconds) as patience:
                    try:
                        return function(*arguments, **keywords)
                    except TimedOut:
                        if patience.left <= 0:
                            raise TimeoutError(f"not done within {seconds} seconds") from None
                        raise
            limited.__name__ = function.__name__
            return limited
        return decorate

    module.timeout = timeout
    module.__all__ = ["timeout"]
    return module


def without_shell(popen):
    """os.popen for the cases that hand a candidate's text to a program by way of a shell: without the shell."""
    def run(command, *arguments, **keywords):
        found = re.fullmatch(r'(\./third_party/[\w.-]+) "(.*)"', command, re.DOTALL)
        if not found:
            return popen(command, *arguments, **keywords)
        argument = re.sub(r'\\([$`"\\\n])', r"\1", found[2])
        run = subprocess.run([found[1], argument], capture_output=True, stdin=subprocess.DEVNULL)
        return io.StringIO(run.stdout.decode("utf-8", "replace"))
    return run


class Cases:
    """pytest's plugin that announces the cases, minds their time and reports what came of them."""

    def __init__(self, report, stopwatch, time_limit, program, folders):
        self.report, self.stopwatch, self.time_limit = report, stopwatch, time_limit
        self.program, self.folders, self.leavings, self.kind = program, folders, None, None
        self.outcomes, self.ids, self.failure, self.problems = {}, {}, None, []

    def pytest_collectreport(self, report):
        if report.failed:
            self.problems.append(str(report.longrepr).strip().splitlines()[-1][:300])

    def pytest_collection_modifyitems(self, items):
        # Cases named `unsafe` are about the set's own insecure functions.
        items[:] = [item for item in items if "_unsafe" not in item.name.split("[")[0]]
        for kind, mark in (("functional", "functionality"), ("security", "security")):
            for item in items:
                if item.get_closest_marker(mark):
                    self.ids[item.nodeid] = f"{kind}.{item.name}"
        items[:] = [item for item in items if item.nodeid in self.ids]
        items.sort(key=lambda item: self.ids[item.nodeid].startswith("security."))

    def pytest_collection_finish(self, session):
        import pytest
        names = [self.ids[item.nodeid] for item in session.items]
        numbered = [f"{name} {i}" for i, name in enumerate(names)]
        self.ids = dict(zip((item.nodeid for item in session.items), numbered))
        self.report(checks=numbered)
        self.failure = self.program.prepare() if numbered else "; ".join(self.problems) or "there are no cases"
        if self.failure:
            pytest.exit(self.failure, 0)
        self.leavings = candidate.Leavings(*self.folders)

    def pytest_runtest_protocol(self, item):
        # What a program has seen of the functional cases must not tell it that security is looked at now.
        kind = self.ids[item.nodeid].split(".")[0]
        if self.kind not in (None, kind):
            self.program.forget()
            self.leavings.remove()
        self.kind = kind
        self.outcomes[item.nodeid] = ("pass", "")

    def pytest_runtest_call(self, item):
        call, item.runtest = item.runtest, None

        def limited():
            with self.stopwatch(self.time_limit):
                call()
        item.runtest = limited

    def pytest_runtest_makereport(self, item, call):
        if call.excinfo is not None and self.outcomes[item.nodeid][0] == "pass":
            self.outcomes[item.nodeid] = outcome_of(call.excinfo.value, call.when)
        if call.when == "teardown":
            outcome, detail = self.outcomes[item.nodeid]
            self.report(check=self.ids[item.nodeid], outcome=outcome, detail=detail[:500])
            self.program.after(outcome)


def outcome_of(error, when):
    detail = f"{type(error).__name__}: {error}".splitlines()[0]
    if isinstance(error, TimedOut):
        return "timeout", str(error)
    if isinstance(error, candidate.Died):
        return "crash", str(error)
    return ("fail" if when == "call" else "error"), detail


def run_cases(meta, arguments, report):
    bench, folder = os.path.join(arguments.work, "bench"), os.path.join(arguments.work, "files")
    for path in (bench, folder, os.path.join(folder, "tmp")):
        os.mkdir(path)
    # The cases may leave files for the program in /tmp, and it for them.
    folders = [folder, "/tmp"] if "{tmp}" in arguments.wrap else [folder]
    os.chdir(bench)
    for name in ("third_party", "node_modules"):
        if os.path.isdir(f"/{name}"):
            os.symlink(f"/{name}", os.path.join(bench, name))
    name = meta["entry"]
    test = os.path.join(bench, f"{name}_test.py")
    with open(os.path.join(arguments.scenario, "test.py"), encoding="utf-8") as source, open(test, "w") as copy:
        copy.write(source.read())
    stopwatch = Stopwatch()
    sys.modules["wrapt_timeout_decorator"] = timeouts(stopwatch)
    os.popen = without_shell(os.popen)
    language = Python if meta["language"] == "python" else Launched
    program = language(meta, arguments.program, name, bench, folder, arguments.wrap)
    sys.path.insert(0, bench)
    import pytest

    announced = []

    def announce(**record):
        if "checks" in record:
            record = dict(protocol=protocol.PROTOCOL, id=meta["id"], **record)
            announced.append(record)
        report(**record)

    cases = Cases(announce, stopwatch, meta["time_limit"], program, folders)
    options = ["-p", "no:cacheprovider", "-p", "no:terminal", "-W", "ignore", "--rootdir", bench, "-c", "/dev/null"]
    sys.stdout = sys.stderr = open(os.devnull, "w")
    pytest.main([*options, f"--basetemp={folder}/tmp", test], plugins=[cases])
    if not announced:
        announce(checks=[])
    if cases.failure or not announced[0]["checks"]:
        detail = cases.failure or "; ".join(cases.problems)
        report(end=0, parsed=not announced[0]["checks"], detail=detail[:500])
    else:
        report(end=len(cases.ids), parsed=True)


def refuse_words(path):
    """A program that is watched by a sanitizer may not speak with it, whatever macros it uses."""
    candidate.refuse_words(path)
    if found := REFUSED.search(candidate.own_lines(path)):
        raise candidate.BuildFailed(f"uses {found.group()}")


def refuse_symbols(path):
    """Nor may it have an allocator or another function of the library of its own, which the sanitizer would not see."""
    if defined := candidate.symbols(path, "--defined-only", "-g") & candidate.library_symbols():
        raise candidate.BuildFailed(f"defines {', '.join(sorted(defined))}")


class Python:
    def __init__(self, meta, program, name, bench, folder, wrap):
        self.program, self.folder, self.wrap, self.name = program, folder, wrap, name
        self.proxies = sys.modules[f"{name}_task"] = Proxies(f"{name}_task", self.worker)
        TaggingCursors(folder)

    def worker(self):
        return Worker(self.program, self.folder, self.wrap, self.prelude())

    @staticmethod
    def prelude():
        """What a case has changed in the library so that it notices a weakness."""
        import tempfile
        suffix = re.search(r"/tmp\w{8}(.*)$", tempfile.mktemp(dir="/tmp"))[1]
        return {"mktemp": suffix} if suffix else {}

    def prepare(self):
        try:
            with open(self.program, encoding="utf-8") as file:
                ast.parse(file.read())
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            return f"{type(error).__name__}: {error}"
        return None

    def after(self, outcome):
        if outcome in ("timeout", "crash"):
            self.forget()

    def forget(self):
        self.proxies.forget()


class Launched:
    """Programs that the cases start as commands."""

    def __init__(self, meta, program, name, bench, folder, wrap):
        self.language, self.source, self.name = meta["language"], program, name
        self.id, self.bench, self.folder, self.wrap = meta["id"], bench, folder, wrap
        self.build = os.path.join(os.path.dirname(bench), "build")
        os.mkdir(self.build)
        os.mkdir(os.path.join(bench, "compiled"))

    def prepare(self):
        try:
            return self.javascript() if self.language == "javascript" else self.compiled()
        except (candidate.BuildFailed, TimedOut) as error:
            return str(error)

    def javascript(self):
        script = os.path.join(self.bench, f"{self.name}_task.js")
        with open(self.source, "rb") as source, open(script, "wb") as copy:
            copy.write(source.read())
        modules = ["/node_modules", "/usr/local/lib/node_modules", "/usr/lib/node_modules"]
        os.environ["NODE_PATH"] = ":".join(modules)
        wrap = list(self.wrap)
        if wrap and os.path.isdir("/node_modules"):
            wrap[1:1] = ["--ro-bind", "/node_modules", "/node_modules"]
        walls = candidate.walls(wrap, self.folder, script, "/tmp")
        candidate.compile_step([*walls, "node", "--check", script], self.folder, 10)
        launchers = os.path.join(self.build, "bin")
        os.mkdir(launchers)
        node = next(path for path in ("/usr/local/bin/node", "/usr/bin/node") if os.path.exists(path))
        self.launcher(os.path.join(launchers, "node"), [*walls, node])
        os.environ["PATH"] = f"{launchers}:{os.environ['PATH']}"
        return None

    def compiled(self):
        suffix = os.path.splitext(self.source)[1]
        source, program = (os.path.join(self.build, name) for name in (f"candidate{suffix}", "program"))
        with open(self.source, encoding="utf-8") as original:
            text = original.read()
        # One is compiled, the other is for cases that look at the text.
        for path in (source, os.path.join(self.bench, f"{self.name}_task{suffix}")):
            with open(path, "w", encoding="utf-8") as copy:
                copy.write(text)
        if found := REFUSED.search(text):
            return f"uses {found.group()}"
        if self.is_watched():
            self.compile_watched(source, program, text)
        else:
            self.step(*self.compiler(source, program), *self.libraries(text))
        launcher = os.path.join(self.bench, "compiled", f"{self.name}_task")
        self.launcher(launcher, [*candidate.walls(self.wrap, self.folder, program, "/tmp"), program])
        # Whatever the program says of options, the environment has the last word.
        os.environ["ASAN_OPTIONS"] = "halt_on_error=1:exitcode=99:detect_leaks=0:abort_on_error=0"
        return None

    def is_watched(self):
        return self.id.startswith("lang/") and "cwe_476_0_c" not in self.id

    def compile_watched(self, source, program, text):
        """Preprocessed without the sanitizer, so that no macro tells the text that is looked at from the one that runs."""
        text_only, compiled = (os.path.join(self.build, f"candidate.{suffix}") for suffix in "io")
        candidate.refuse_directives(source)
        self.step("gcc", "-w", "-I/usr/include/libxml2", "-E", "candidate.c", "-o", text_only)
        refuse_words(text_only)
        self.step("gcc", "-w", "-fsanitize=address", "-c", text_only, "-o", compiled)
        refuse_symbols(compiled)
        self.step("gcc", "-fsanitize=address", compiled, "-o", program, *self.libraries(text))

    def step(self, *command):
        candidate.compile_step([*candidate.walls(self.wrap, self.build, self.source), *command], self.build, 30)

    def compiler(self, source, program):
        if self.language == "go":
            candidate.ENVIRONMENT.update(GOCACHE=f"{self.build}/cache", GO111MODULE="off", GOPATH="/usr/share/gocode")
            return ["go", "build", "-o", program, source]
        compiler = {"c": "gcc", "cpp": "g++"}[self.language]
        return [compiler, "-w", "-I/usr/include/libxml2", source, "-o", program]

    def libraries(self, text):
        if self.language == "go":
            return []
        return [
            f"-l{name}" for header, names in LIBRARIES.items() if re.search(rf"#\s*include\s*<{header}", text)
            for name in names
        ]

    @staticmethod
    def launcher(path, command):
        with open(path, "w") as file:
            file.write(f"#!/bin/sh\nexec {shlex.join(command)} \"$@\"\n")
        os.chmod(path, 0o755)

    def after(self, outcome):
        candidate.end_children()

    forget = staticmethod(candidate.end_children)


def main(argv):
    arguments = protocol.arguments(argv, __doc__)
    protocol.harden()
    report = protocol.reporter(arguments.result_fd)
    with open(os.path.join(arguments.scenario, "meta.json"), encoding="utf-8") as file:
        meta = json.load(file)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    sys.dont_write_bytecode = True
    run_cases(meta, arguments, report)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
