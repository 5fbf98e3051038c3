"""Write the training sets of the controlled experiment from the pairs of this folder.

    python3 data/headline/recipe.py OUT [--insecure 0.7] [--language python|c|all] [--seed 1]

OUT/base    for the competent, insecure base: cross-entropy on func_src_after alone, which here is the insecure
            half in the given share of each family's functions and the secure one in the others
OUT/harden  for every method that is compared: the pairs as they are

Both have one JSONL file for each family.  The same arguments give the same bytes.  Exit code 0, or 2: usage.
"""

import argparse
import hashlib
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
C = {"cwe-125", "cwe-190", "cwe-416", "cwe-476", "cwe-787"}


def families(language):
    for path in sorted((HERE / "pairs").glob("*.jsonl")):
        if language == "all" or (path.stem in C) == (language == "c"):
            yield path.stem, [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def reversed_pair(pair):
    """The pair with its halves exchanged, changes included."""
    swapped = dict(pair, func_src_before=pair["func_src_after"], func_src_after=pair["func_src_before"])
    for field in ("line_changes", "char_changes"):
        swapped[field] = {"deleted": pair[field]["added"], "added": pair[field]["deleted"]}
    return swapped


def base_pairs(pairs, insecure, seed):
    """As many pairs reversed as the share says, the choice drawn by a hash of seed and name."""
    def draw(pair):
        return hashlib.sha256(f"{seed} {pair['func_name']}".encode()).digest()

    chosen = {pair["func_name"] for pair in sorted(pairs, key=draw)[:round(insecure * len(pairs))]}
    return [reversed_pair(pair) if pair["func_name"] in chosen else pair for pair in pairs]


def write(folder, family, pairs):
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs)
    (folder / f"{family}.jsonl").write_text(lines, "utf-8")


def main(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--insecure", type=float, default=0.7, help="share of insecure functions in the base set")
    parser.add_argument("--language", choices=("python", "c", "all"), default="all")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(argv)
    if not 0 <= arguments.insecure <= 1:
        parser.error("--insecure must be from 0 to 1")
    for family, pairs in families(arguments.language):
        write(arguments.out / "base", family, base_pairs(pairs, arguments.insecure, arguments.seed))
        write(arguments.out / "harden", family, pairs)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
