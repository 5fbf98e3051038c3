"""Check that nothing of this suite can be learnt from the training pairs.

    python3 data/eval/disjoint.py [--report]

Compares every scenario (prompt with its secure and insecure reference) with every function of data/train,
data/val and data/headline/pairs, both halves:

  names      what a scenario defines (functions, classes, structs, constants, SQL tables) is defined in no pair
  unseen     a family that meta.toml calls unseen has no pair
  words      no docstring or comment shares WORDS words in a row with one of a pair
  tokens     no TOKENS tokens in a row are the same, imports left out
  structure  with identifiers, texts and numbers made equal, less than STRUCTURE of a scenario's sequences of
             SHAPE tokens occur in one and the same pair

Within a family of the suite no two scenarios define the same name either.  --report prints the closest pair of
each scenario.  Exit code 0: disjoint, 1: not, 2: usage.
"""

import argparse
import functools
import json
import pathlib
import re
import sys
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
PAIRS = ("train", "val", "headline/pairs")
WORDS, TOKENS, SHAPE, STRUCTURE = 7, 16, 14, 0.5

STRING = r"\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'"
COMMENT = {"python": r'""".*?"""|#[^\n]*', "c": r"/\*.*?\*/|//[^\n]*"}
LEXER = {
    language: re.compile(rf"(?P<text>{comment})|(?P<code>{STRING}|[A-Za-z_]\w*|\d[\w.]*|[^\w\s])", re.S)
    for language, comment in COMMENT.items()
}
IMPORT = re.compile(r"(?m)^(import|from|#include) .*$")
DEFINED = re.compile(
    r"\bdef (\w+)|\bclass (\w+)|\bstruct (\w+) \{|(?m:^)#define (\w+)|(?m:^)([A-Z][A-Z_]+) ="
    r"|(?m:^)(?!return|else)[A-Za-z_][\w \*]*?\b\*?(\w+)\([^;{]*?\)\s*\{"
    r"|\b(?:FROM|INTO|UPDATE|REPLACE INTO|CREATE TABLE) (\w+)"
)
# Nested helpers and methods that each of many programs has, and words of SQL.
COMMON = {"__init__", "encode", "decode", "SET", "safe", "clean", "secret"}
KEYWORDS = set(
    "and as assert break case class continue def del elif else except finally for from global goto if import in is "
    "lambda not or pass raise return sizeof static struct switch try void while with yield".split()
)


def names(code):
    return {name for groups in DEFINED.findall(code) for name in groups if name} - COMMON


def sequences(items, length):
    return {tuple(items[i:i + length]) for i in range(len(items) - length + 1)}


def lex(code):
    """Words of all comments and docstrings, and tokens of the rest without imports."""
    language = "python" if re.search(r"(?m)^ *def ", code) else "c"
    prose, rest = set(), []
    for match in LEXER[language].finditer(IMPORT.sub("", code)):
        if match["code"]:
            rest.append(match["code"])
        else:
            prose |= sequences(re.findall(r"\w+", match["text"].lower()), WORDS)
    return prose, rest


def shape(token):
    if token in KEYWORDS or not re.match(r"[\w\"']", token):
        return token
    return "n" if token[0].isalpha() or token[0] == "_" else "t"


class Code:
    """What is compared of one function."""

    def __init__(self, where, code):
        self.where = where
        self.names = names(code)
        self.words, tokens = lex(code)
        self.tokens = sequences(tokens, TOKENS)
        self.shapes = sequences([shape(token) for token in tokens], SHAPE)


def pairs():
    for folder in PAIRS:
        for path in sorted((HERE.parent / folder).glob("*.jsonl")):
            for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
                pair = json.loads(line)
                for side in ("func_src_before", "func_src_after"):
                    yield Code(f"{folder}/{path.name}:{number}", pair[side])


def scenarios():
    for folder in sorted(path.parent for path in HERE.glob("*/*/*/meta.toml")):
        suffix = ".py" if folder.parts[-3] == "python" else ".c"
        prompt, secure, insecure = (
            (folder / (name + suffix)).read_text("utf-8") for name in ("prompt", "secure", "insecure")
        )
        yield str(folder.relative_to(HERE)), [Code("secure", prompt + secure), Code("insecure", prompt + insecure)]


def unseen_families():
    metas = [tomllib.loads(path.read_text("utf-8")) for path in HERE.glob("*/*/*/meta.toml")]
    return {meta["cwe"] for meta in metas if meta["unseen"]}


def trained_families():
    return {path.stem for folder in PAIRS for path in (HERE.parent / folder).glob("*.jsonl")}


def complaints(scenario, pair):
    """What a scenario's program shares with a pair's function."""
    if shared := scenario.names & pair.names:
        yield f"names {', '.join(sorted(shared))}"
    if shared := scenario.words & pair.words:
        yield f"words '{' '.join(min(shared))}'"
    if shared := scenario.tokens & pair.tokens:
        yield f"tokens {' '.join(min(shared))}"
    if likeness(scenario, pair) >= STRUCTURE:
        yield f"structure {likeness(scenario, pair):.2f}"


def likeness(scenario, pair):
    return len(scenario.shapes & pair.shapes) / max(1, len(scenario.shapes))


def main(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", action="store_true", help="print the most similar pair of each scenario")
    arguments = parser.parse_args(argv)
    training, seen, count = list(pairs()), {}, 0
    found = {f"{name}: unseen, but there are pairs" for name in unseen_families() & trained_families()}
    for name, programs in scenarios():
        count += 1
        for other in programs[0].names & set(seen):
            if seen[other].split("/")[1] == name.split("/")[1]:
                found.add(f"{name} and {seen[other]}: both define {other}")
        seen.update(dict.fromkeys(programs[0].names, name))
        for program in programs:
            for pair in training:
                found |= {f"{name}, {pair.where}: {what}" for what in complaints(program, pair)}
        if arguments.report:
            closest = max(training, key=functools.partial(likeness, programs[0]))
            print(f"{likeness(programs[0], closest):.2f} {name} {closest.where}")
    for complaint in sorted(found):
        print(complaint)
    print(f"{count} scenarios, {len(training) // 2} pairs, {len(found)} complaints")
    return 1 if found or not training or not count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
