"""Judges one program on one scenario; started by a judge inside its sandbox.

    python3 harness.py --scenario DIR --program FILE --work DIR [--result-fd N] [--wrap WORD]...

PROGRAM is the prompt with a completion.  One JSON object a line goes to the result descriptor (1 if none is
named), which no process of the candidate inherits: the start, every check, the end.  --wrap words stand before
every command that compiles or runs the candidate, so that a judge can put it behind walls of its own.
README.md has the protocol.
"""

import ast
import contextlib
import functools
import os
import signal
import sys
import tomllib
import types

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import candidate  # noqa: E402
from patience import STARVED  # noqa: E402
from protocol import PROTOCOL, arguments, harden, reporter  # noqa: E402

KINDS = ("functional", "security")
# Processor time of a check itself, in limits of the candidate.
CLOCK = 4


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


@contextlib.contextmanager
def clock(limit):
    """Ends a check that works too long itself, on what the candidate left it, as a query without end: by an
    exception after as much processor time as a candidate has, and with this whole process long after that."""
    def end(*_):
        raise candidate.TimedOut("the check did not come to an end with what it was given")

    signal.signal(signal.SIGVTALRM, end)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_VIRTUAL, CLOCK * limit)
    signal.alarm(int(2 * STARVED * limit) + 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.alarm(0)


def run_check(kind, check, folder, world):
    """(outcome, detail) of one check; every way not to pass has its own name, and none of them is `pass`.

    A check that trips over what the candidate gave it, a None in place of a list, has failed if it asked for
    the function's work; if it asked for security, it has found nothing out.
    """
    os.mkdir(folder)
    case = world()
    try:
        with clock(case.patience.left):
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


def main(argv):
    options = arguments(argv, __doc__)
    harden()
    report = reporter(options.result_fd)
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
    # Every case has the same folder, by whose name a candidate could tell the checks.
    for name, check in checks.items():
        if outcome in ("timeout", "skipped"):
            outcome, detail = "skipped", "an earlier check ran out of time"
        else:
            folder = os.path.join(options.work, "case")
            world = functools.partial(case, program, folder, meta["time_limit"], options.wrap)
            outcome, detail = run_check(name.split(".")[0], check, folder, world)
        report(check=name, outcome=outcome, detail=detail[:500])
    report(end=len(checks), parsed=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
