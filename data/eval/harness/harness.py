"""Judges one program on one scenario; started by a judge inside its sandbox.

    python3 harness.py --scenario DIR --program FILE --work DIR [--result-fd N] [--wrap WORD]...

PROGRAM is the prompt with a completion.  One JSON object a line goes to the result descriptor (1 if none is
named), which no process of the candidate inherits: the start, every check, the end.  --wrap words stand before
every command that compiles or runs the candidate, so that a judge can put it behind walls of its own.
README.md has the protocol.
"""

import argparse
import ast
import ctypes
import functools
import json
import os
import sys
import tomllib
import types

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import candidate  # noqa: E402

PROTOCOL = 1
KINDS = ("functional", "security")
PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 4, 36


def harden():
    """Closes /proc/PID/fd and ptrace of this process to the candidate, which may run as the same user, and makes
    it the parent of every process that a candidate leaves behind."""
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def load_checks(scenario):
    """The checks of a scenario by id, `functional.NAME` or `security.NAME`, in the order of the file."""
    path = os.path.join(scenario, "checks.py")
    with open(path, encoding="utf-8") as file:
        source = file.read()
    module = types.ModuleType("checks")
    module.__file__ = path
    exec(compile(source, path, "exec"), module.__dict__)
    checks = {}
    for name, value in list(module.__dict__.items()):
        kind, _, rest = name.partition("_")
        if kind in KINDS and rest and callable(value):
            checks[f"{kind}.{rest}"] = value
    return checks


def run_check(kind, check, folder, world):
    """(outcome, detail) of one check; every way not to pass has its own name, and none of them is `pass`.

    A check that trips over what the candidate gave it, a None in place of a list, has failed if it asked for
    the function's work; if it asked for security, it has found nothing out.
    """
    os.mkdir(folder)
    case = world()
    try:
        check(case)
        return "pass", ""
    except AssertionError as error:
        return "fail", str(error) or "the assertion does not hold"
    except candidate.Raised as error:
        return "fail", f"raised {error}"
    except candidate.TimedOut as error:
        return "timeout", str(error)
    except candidate.Died as error:
        return "crash", str(error)
    except Exception as error:
        return "fail" if kind == "functional" else "error", f"{type(error).__name__}: {error}"
    finally:
        case.close()


def prepare(meta, options, build):
    """The path of what the cases run, or the reason why there is nothing to run."""
    if meta["language"] == "c":
        return build(options.program, options.work, meta["time_limit"], options.wrap)
    with open(options.program, encoding="utf-8") as file:
        ast.parse(file.read())
    return options.program


def arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--scenario", "--program", "--work"):
        parser.add_argument(name, required=True, type=os.path.abspath)
    parser.add_argument("--result-fd", type=int, default=1)
    parser.add_argument("--wrap", action="append", default=[])
    return parser.parse_args(argv)


def main(argv):
    options = arguments(argv)
    harden()
    results = os.fdopen(os.dup(options.result_fd), "w", encoding="utf-8")

    def report(**record):
        results.write(json.dumps(record) + "\n")
        results.flush()

    with open(os.path.join(options.scenario, "meta.toml"), "rb") as file:
        meta = tomllib.load(file)

    def build(program, work, time_limit, wrap):
        folder = os.path.join(work, "build")
        os.mkdir(folder)
        return candidate.build(program, options.scenario, folder, time_limit, wrap)

    judge(meta, load_checks(options.scenario), options, report, candidate.Case, build)
    return 0


def judge(meta, checks, options, report, case, build):
    """Reports every check of a program: its start, the checks' outcomes, its end."""
    report(protocol=PROTOCOL, id=meta["id"], checks=list(checks))
    try:
        program = prepare(meta, options, build)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        report(end=0, parsed=False, detail=f"{type(error).__name__}: {error}")
        return
    except (candidate.BuildFailed, candidate.TimedOut) as error:
        report(end=0, parsed=False, detail=str(error))
        return
    outcome = None
    # The names of folders get into messages, which are the same whenever a program is judged.
    for number, (name, check) in enumerate(checks.items()):
        if outcome in ("timeout", "skipped"):
            outcome, detail = "skipped", "an earlier check ran out of time"
        else:
            folder = os.path.join(options.work, f"case-{number}")
            world = functools.partial(case, program, folder, meta["time_limit"], options.wrap)
            outcome, detail = run_check(name.split(".")[0], check, folder, world)
        report(check=name, outcome=outcome, detail=detail[:500])
    report(end=len(checks), parsed=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
