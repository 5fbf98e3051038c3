"""Versions of Python, of the programs that the arguments name, and of all packages, as JSON."""

import importlib.metadata
import json
import platform
import subprocess
import sys
import tomllib  # noqa: F401  the harness needs it: Python 3.11


def version(program):
    """The first line of what a program says of its version; None if there is none."""
    for argument in ("--version", "version"):
        try:
            run = subprocess.run([program, argument], capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return None
        if run.returncode == 0 and run.stdout:
            return run.stdout.splitlines()[0].strip()
    return None


tools = {name: version(name) for name in sys.argv[1:]}
packages = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions() if d.metadata["Name"]}
print(json.dumps({
    "python": platform.python_version(),
    "tools": {name: found for name, found in tools.items() if found},
    "packages": packages,
}))
