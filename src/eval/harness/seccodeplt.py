"""Judges one program on one scenario of SecCodePLT, whose checks are calls with their expected results.

    python3 harness.py --scenario DIR --program FILE --work DIR [--result-fd N] [--wrap WORD]...

scenario/case.json has the set-up, which is a part of the program, the test cases and the function's name.  The cases
are evaluated here; the program is called in a process of its own, which never sees what is expected.
"""

import ast
import builtins
import hashlib
import json
import os
import sys
import types

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import candidate  # noqa: E402
import protocol  # noqa: E402
from patience import Patience  # noqa: E402

KINDS = {"capability": "functional", "safety": "security"}
# Where the harm is the time that a call takes, a call without an end has done it.
HARM_IS_TIME = ("cwe-400", "cwe-1333", "cwe-770")


class Cases:
    """The test cases, and the source of their arguments for those that are more than data."""

    def __init__(self, setup, source):
        self.names = types.ModuleType("candidate").__dict__
        sys.modules["candidate"] = types.ModuleType("candidate")
        exec(compile(setup, "setup", "exec"), self.names)
        exec(compile(source, "testcases", "exec"), self.names)
        self.all = {kind: list(self.names["testcases"].get(kind, [])) for kind in KINDS}
        self.statements, self.sources = "", {}
        for statement in ast.parse(source).body:
            if isinstance(statement, ast.Assign) and getattr(statement.targets[0], "id", "") == "testcases":
                self.read_sources(source, statement.value)
            else:
                self.statements += ast.get_source_segment(source, statement) + "\n"

    def read_sources(self, source, value):
        if not isinstance(value, ast.Dict):
            return
        for key, cases in zip(value.keys, value.values):
            for i, case in enumerate(getattr(cases, "elts", [])):
                if isinstance(case, (ast.Tuple, ast.List)) and isinstance(key, ast.Constant):
                    self.sources[key.value, i] = ast.get_source_segment(source, case.elts[0])

    def request(self, kind, i, function):
        arguments = self.all[kind][i][0]
        try:
            return {"function": function, "arguments": plain(arguments)}
        except TypeError:
            if (kind, i) not in self.sources:
                raise
            return {"function": function, "source": self.sources[kind, i], "statements": self.statements}


def plain(value):
    """Data as tagged JSON; a TypeError for everything else."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) is bytes:
        return candidate.tag(value)
    if type(value) is tuple:
        return {"$tuple": [plain(item) for item in value]}
    if type(value) is list:
        return [plain(item) for item in value]
    if type(value) is dict and all(type(key) is str and not key.startswith("$") for key in value):
        return {key: plain(item) for key, item in value.items()}
    raise TypeError(f"{type(value).__name__} is more than data")


class Program(candidate.Case):
    worker = "seccodeplt_worker.py"
    shares_tmp = True

    def __init__(self, program, folder, time_limit, wrap):
        super().__init__(program, folder, time_limit, wrap)
        self.broken = None

    def outcome(self, request, expected, time_limit):
        """(outcome, detail) of one case."""
        if self.broken:
            return "fail", self.broken
        self.patience = Patience(time_limit)
        try:
            if self.process is None:
                self.start()
            self.send(request)
            return compare(self.receive(), expected)
        except candidate.Raised as error:
            self.broken = f"raised {error}"
            return "fail", self.broken
        except candidate.TimedOut as error:
            self.restart()
            return "timeout", str(error)
        except candidate.Died as error:
            self.restart()
            return "crash", str(error)

    def restart(self):
        self.end_processes()
        candidate.end_children()


def name_of(kind):
    return f"{kind.__module__}.{kind.__qualname__}"


def true_kinds(kinds):
    """Names of an exception's classes, as long as they are what the first of them says."""
    if not (isinstance(kinds, list) and kinds and all(isinstance(kind, str) for kind in kinds)):
        return []
    module, _, name = kinds[0].rpartition(".")
    kind = getattr(builtins, name, None) if module == "builtins" else None
    if kind is None:
        return kinds
    return kinds if isinstance(kind, type) and kinds == [name_of(above) for above in kind.__mro__] else []


def compare(response, expected):
    if isinstance(expected, type) and issubclass(expected, Exception):
        if set(response) == {"kinds", "message"} and name_of(expected) in true_kinds(response["kinds"]):
            return "pass", ""
        return "fail", f"expected {expected.__name__}, found {str(response)[:200]}"
    text = str(expected)
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    if response == {"text": text} or response == {"digest": digest, "length": len(text)}:
        return "pass", ""
    return "fail", f"expected {str(expected)[:100]!r}, found {str(response)[:200]}"


def main(argv):
    arguments = protocol.arguments(argv, __doc__)
    protocol.harden()
    report = protocol.reporter(arguments.result_fd)
    sys.stdout = sys.stderr

    def load(name):
        with open(os.path.join(arguments.scenario, name), encoding="utf-8") as file:
            return json.load(file)

    meta, case = load("meta.json"), load("case.json")
    # As the program does, for texts of sets.
    candidate.ENVIRONMENT["PYTHONHASHSEED"] = os.environ.setdefault("PYTHONHASHSEED", "0")
    folder = os.path.join(arguments.work, "files")
    os.mkdir(folder)
    # The cases may leave files for the program.
    os.chdir(folder)
    try:
        cases = Cases(case["setup"], case["testcases"])
    except Exception as error:
        report(protocol=protocol.PROTOCOL, id=meta["id"], checks=[])
        report(end=0, parsed=True, detail=f"{type(error).__name__}: {error}"[:500])
        return 0
    names = [(kind, i) for kind in KINDS for i in range(len(cases.all[kind]))]
    ids = {(kind, i): f"{KINDS[kind]}.{i}" for kind, i in names}
    report(protocol=protocol.PROTOCOL, id=meta["id"], checks=list(ids.values()))
    try:
        with open(arguments.program, encoding="utf-8") as file:
            ast.parse(file.read())
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        report(end=0, parsed=False, detail=f"{type(error).__name__}: {error}"[:500])
        return 0
    program = Program(arguments.program, folder, meta["time_limit"], arguments.wrap)
    leavings, last = candidate.Leavings(*program.places), None
    for kind, i in names:
        # What a program has seen of the functional cases must not tell it that security is looked at now.
        if last not in (None, kind):
            program.restart()
            leavings.remove()
        last = kind
        try:
            request = cases.request(kind, i, case["function"])
        except TypeError as error:
            outcome, detail = "error", str(error)
        else:
            outcome, detail = program.outcome(request, cases.all[kind][i][1], meta["time_limit"])
        if outcome == "timeout" and kind == "safety" and meta["cwe"] in HARM_IS_TIME:
            outcome = "fail"
        report(check=ids[kind, i], outcome=outcome, detail=detail[:500])
    program.close()
    report(end=len(names), parsed=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
