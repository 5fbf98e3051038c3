#!/usr/bin/env python3
"""Check the vulnerable/fixed pairs of this folder; see README.md.

    python3 data/check.py             validate every pair
    python3 data/check.py --rewrite   first recompute line_changes and char_changes

Exits 0 when all is well, 1 when there is a problem, 2 for a wrong command line.
Needs Python 3.9+ and gcc (GCC=... names another one; --skip-c does without).
"""

import ast
import difflib
import json
import os
import pathlib
import re
import subprocess
import sys
import textwrap

HERE = pathlib.Path(__file__).resolve().parent
PYTHON = ("cwe-022", "cwe-078", "cwe-079", "cwe-089")
C = ("cwe-125", "cwe-190", "cwe-416", "cwe-476", "cwe-787")
FIELDS = (
    "func_name", "func_src_before", "func_src_after", "commit_link",
    "file_name", "vul_type", "description", "line_changes", "char_changes",
)


class Problem(Exception):
    """Something is wrong with a pair."""


def require(condition, message):
    if not condition:
        raise Problem(message)


def lines_of(text):
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def tokens_of(text):
    return re.findall(r"\w+|\s|[^\w\s]", text)


def hunks_of(before, after):
    """Index ranges (i, j, k, l) where before[i:j] became after[k:l]."""
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    return [code[1:] for code in matcher.get_opcodes() if code[0] != "equal"]


def starts_of(parts):
    starts = [0]
    for part in parts:
        starts.append(starts[-1] + len(part))
    return starts


def compute_changes(before, after):
    """line_changes and char_changes; offsets count code points.

    Lines are compared first.  Lines that were only deleted or only added are
    changed characters as a whole; other hunks are compared token by token.
    """
    line_changes = {"deleted": [], "added": []}
    char_changes = {"deleted": [], "added": []}
    old_lines, new_lines = lines_of(before), lines_of(after)
    old_starts, new_starts = starts_of(old_lines), starts_of(new_lines)

    for i, j, k, l in hunks_of(old_lines, new_lines):
        old_tokens = tokens_of("".join(old_lines[i:j]))
        new_tokens = tokens_of("".join(new_lines[k:l]))
        inner = hunks_of(old_tokens, new_tokens)
        for kind, first, last, lines, starts, tokens, ranges in (
            ("deleted", i, j, old_lines, old_starts, old_tokens, [r[:2] for r in inner]),
            ("added", k, l, new_lines, new_starts, new_tokens, [r[2:] for r in inner]),
        ):
            for n in range(first, last):
                line_changes[kind].append({
                    "line_no": n + 1, "char_start": starts[n], "char_end": starts[n + 1], "line": lines[n],
                })
            offsets = starts_of(tokens)
            for m, n in ranges:
                if m < n:
                    char_changes[kind].append({
                        "char_start": starts[first] + offsets[m],
                        "char_end": starts[first] + offsets[n],
                        "chars": "".join(tokens[m:n]),
                    })
    return line_changes, char_changes


def without(text, spans, key, where):
    """text less its spans, each of which must be where it says it is."""
    kept, end = [], 0
    for span in spans:
        start = span["char_start"]
        require(end <= start < span["char_end"] <= len(text), f"{where}: spans overlap or lie outside")
        require(text[start:span["char_end"]] == span[key], f"{where}: offsets do not give {span[key]!r}")
        if "line_no" in span:
            require(text.count("\n", 0, start) + 1 == span["line_no"], f"{where}: wrong line_no")
        kept.append(text[end:start])
        end = span["char_end"]
    return "".join(kept) + text[end:]


def check_code(pair, side, skip_c):
    text = pair["func_src_" + side]
    require(15 <= len(lines_of(text)) <= 45, f"{side}: has {len(lines_of(text))} lines, not 15 to 45")
    require("\t" not in text and "\r" not in text, f"{side}: has tabs or carriage returns")
    require(text == text.rstrip(), f"{side}: ends in white space")
    if pair["vul_type"] in PYTHON:
        tree = ast.parse(textwrap.dedent(text))
        require(len(tree.body) == 1, f"{side}: is not one function")
        require(tree.body[0].name == pair["func_name"], f"{side}: func_name is not its name")
        return
    require(re.search(r"\b%s\(" % re.escape(pair["func_name"]), text), f"{side}: func_name is not in it")
    if skip_c:
        return
    command = [
        os.environ.get("GCC", "gcc"), "-std=gnu11", "-fsyntax-only", "-Wall", "-Werror",
        "-Wno-unused-function", "-include", str(HERE / "prelude.h"), "-x", "c", "-",
    ]
    result = subprocess.run(command, input=text + "\n", text=True, capture_output=True, encoding="utf-8")
    require(result.returncode == 0, f"{side}: does not compile\n{result.stderr}")


def check_pair(pair, cwe, skip_c):
    require(tuple(pair) == FIELDS, f"fields are {list(pair)}")
    for field in FIELDS[:7]:
        require(isinstance(pair[field], str), f"{field} is not a string")
        require(pair[field] or field == "commit_link", f"{field} is empty")
    require(pair["vul_type"] == cwe, f"vul_type is not {cwe}")
    require(pair["func_src_before"] != pair["func_src_after"], "nothing changes")
    for field, key in (("line_changes", "line"), ("char_changes", "chars")):
        rest = [
            without(pair["func_src_" + side], pair[field][kind], key, f"{field}.{kind}")
            for side, kind in (("before", "deleted"), ("after", "added"))
        ]
        require(rest[0] == rest[1], f"{field}: the unchanged text differs")
    check_code(pair, "before", skip_c)
    check_code(pair, "after", skip_c)


def main(arguments):
    if set(arguments) - {"--rewrite", "--skip-c"}:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    problems, names, counts = 0, {}, {}
    for split in ("train", "val"):
        for cwe in PYTHON + C:
            path = HERE / split / f"{cwe}.jsonl"
            try:
                pairs = [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
                if "--rewrite" in arguments:
                    for pair in pairs:
                        changes = compute_changes(pair["func_src_before"], pair["func_src_after"])
                        pair["line_changes"], pair["char_changes"] = changes
                    text = "".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs)
                    path.write_text(text, "utf-8")
            except (OSError, ValueError, KeyError) as error:
                print(f"{split}/{path.name}: {error!r}")
                problems += 1
                continue
            counts[split, cwe] = len(pairs)
            for number, pair in enumerate(pairs, start=1):
                where = f"{split}/{path.name}:{number}"
                try:
                    check_pair(pair, cwe, "--skip-c" in arguments)
                    name = pair["func_name"]
                    require(name not in names, f"{name} is also in {names.get(name)}")
                    names[name] = where
                except (Problem, SyntaxError, KeyError, TypeError, OSError) as error:
                    print(f"{where}: {type(error).__name__}: {error}")
                    problems += 1
    print(f"{'CWE':<9}{'train':>6}{'val':>6}")
    for cwe in PYTHON + C:
        print(f"{cwe:<9}{counts.get(('train', cwe), 0):>6}{counts.get(('val', cwe), 0):>6}")
    print(f"{sum(counts.values())} pairs, {problems} problems")
    if "--skip-c" in arguments:
        print("the C functions were not compiled")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
