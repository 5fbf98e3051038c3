"""How a harness is called and how it answers a judge; README.md specifies both."""

import argparse
import ctypes
import json
import os

PROTOCOL = 1
PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 4, 36


def harden():
    """Closes /proc/PID/fd and ptrace of this process to the candidate, which may run as the same user, and makes
    it the parent of every process that a candidate leaves behind."""
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def arguments(argv, description):
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    for name in ("--scenario", "--program", "--work"):
        parser.add_argument(name, required=True, type=os.path.abspath)
    parser.add_argument("--result-fd", type=int, default=1)
    parser.add_argument("--wrap", action="append", default=[])
    return parser.parse_args(argv)


def reporter(descriptor):
    """Writes records to a copy of the descriptor, which no process of a candidate inherits."""
    results = os.fdopen(os.dup(descriptor), "w", encoding="utf-8")

    def report(**record):
        # Text of the candidate's can have halves of surrogate pairs, which are no Unicode.
        text = json.dumps(record, ensure_ascii=False).encode("utf-8", "replace").decode()
        results.write(text + "\n")
        results.flush()

    return report
