"""Check the pairs of this folder; see README.md.

    python3 data/headline/check.py

Both halves of every pair parse or compile without warnings, their changes are those that ../check.py computes,
names are unique, and both halves of a Python pair do the same in ordinary use (examples.py).  Exit code 0: all is
well, 1: there is a problem.  Needs Python 3.11 or later and gcc.
"""

import ast
import importlib.util
import json
import os
import pathlib
import sqlite3
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from examples import EXAMPLES  # noqa: E402
from recipe import families  # noqa: E402

specification = importlib.util.spec_from_file_location("pairs_check", HERE.parent / "check.py")
pairs_check = importlib.util.module_from_spec(specification)
specification.loader.exec_module(pairs_check)

GCC = ["gcc", "-std=gnu11", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-x", "c", "-"]


def table(description):
    """A database in memory from "table(columns): values of a row; values of the next"."""
    head, _, rows = description.partition(":")
    connection = sqlite3.connect(":memory:")
    name, columns = head.rstrip(")").split("(")
    key = columns.replace("slug", "slug PRIMARY KEY")
    connection.execute(f"CREATE TABLE {name} ({key})")
    for row in filter(None, map(str.split, rows.split(";"))):
        connection.execute(f"INSERT INTO {name} VALUES ({', '.join('?' * len(row))})", row)
    return connection


def behaviour(source, setup, expression):
    """What an example gives, run in a folder of its own."""
    names = {"os": os}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            exec(source, names)
            if "DB" in expression:
                names["DB"] = table(setup)
            else:
                exec(setup, names)
            return repr(eval(expression, names))
        finally:
            os.chdir(HERE)


def problems(pair, language):
    """What is wrong with one pair."""
    before, after = pair["func_src_before"], pair["func_src_after"]
    if tuple(pair) != pairs_check.FIELDS:
        yield f"fields are {list(pair)}"
    if pairs_check.compute_changes(before, after) != (pair["line_changes"], pair["char_changes"]):
        yield "the changes are not those between its halves"
    for source in (before, after):
        if language == "c":
            run = subprocess.run(GCC, input=source + "\n", text=True, capture_output=True)
            if run.returncode:
                yield run.stderr
        elif not any(getattr(node, "name", None) == pair["func_name"] for node in ast.parse(source).body):
            yield "func_name is no function of it"
    if language == "python":
        example = EXAMPLES.get(pair["func_name"])
        results = [behaviour(source, *example) for source in (before, after)] if example else ["there is no example"]
        if len(set(results)) > 1 or not example:
            yield f"in ordinary use: {results}"


def main():
    names, count = set(), 0
    for language in ("python", "c"):
        for family, pairs in families(language):
            for pair in pairs:
                where = f"{family} {pair['func_name']}"
                try:
                    found = list(problems(pair, language))
                except Exception as error:
                    found = [f"{type(error).__name__}: {error}"]
                if pair["func_name"] in names:
                    found.append("there is another pair of that name")
                names.add(pair["func_name"])
                count += len(found)
                for problem in found:
                    print(f"{where}: {problem}")
    print(f"{len(names)} pairs, {count} problems")
    return 1 if count or not names else 0


if __name__ == "__main__":
    sys.exit(main())
