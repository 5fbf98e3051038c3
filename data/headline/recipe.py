"""Write the training sets of the controlled experiment from the pairs of this folder.

    python3 data/headline/recipe.py OUT [--suite DIR] [--insecure 0.7] [--language python|c|all] [--seed 1]
    python3 data/headline/recipe.py --part validation|test|all --suite DIR [--language python|c|all]

OUT/base    for the competent, insecure base: cross-entropy on func_src_after alone, which here is the insecure
            half in the given share of each family's functions and the secure one in the others.  With --suite,
            also three functions that solve each of its scenarios; that share of them, rounded, is insecure
OUT/harden  for every method that is compared: the pairs as they are, nothing of a suite

Both have one JSONL file for each family.  The same arguments give the same bytes.  --part prints the ids of a third
of each family's scenarios, on which learning rates are chosen, of the others, or of all.  Exit code 0, or 2: usage.
"""

import argparse
import hashlib
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
SOLUTIONS = 3  # of every scenario, in the base set
C = {"cwe-125", "cwe-190", "cwe-416", "cwe-476", "cwe-787"}


def families(language):
    for path in sorted((HERE / "pairs").glob("*.jsonl")):
        if language == "all" or (path.stem in C) == (language == "c"):
            yield path.stem, [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


def reversed_pair(pair):
    """The pair with its halves exchanged, changes included."""
    swapped = dict(pair, func_src_before=pair["func_src_after"], func_src_after=pair["func_src_before"])
    for field in ("line_changes", "char_changes"):
        swapped[field] = {"deleted": pair[field]["added"], "added": pair[field]["deleted"]}
    return swapped


def draw(seed, *names):
    """A number that seed and names decide."""
    return hashlib.sha256(" ".join(map(str, (seed, *names))).encode()).digest()


def base_pairs(pairs, insecure, seed):
    """As many pairs reversed as the share says, chosen by lot."""
    names = sorted((pair["func_name"] for pair in pairs), key=lambda name: draw(seed, name))
    chosen = set(names[:round(insecure * len(pairs))])
    return [reversed_pair(pair) if pair["func_name"] in chosen else pair for pair in pairs]


def scenarios(suite, language):
    """The folders of a suite's scenarios by family, in the order of a lot."""
    families = {}
    for meta in sorted(suite.glob("*/cwe-*/*/meta.toml")):
        if language in ("all", meta.relative_to(suite).parts[0]):
            families.setdefault(meta.parent.parent.name, []).append(meta.parent)
    return {family: sorted(folders, key=lambda folder: draw("part", folder.name))
            for family, folders in families.items()}


def solutions(folder, insecure, seed):
    """Functions that solve a scenario, as pairs whose func_src_after is insecure in about the given share."""
    [prompt] = folder.glob("prompt.*")
    known = {kind: sorted(folder.glob(f"{kind}.*")) + sorted(folder.glob(f"alternatives/{kind}*"))
             for kind in ("secure", "insecure")}
    kinds = ["insecure"] * round(insecure * SOLUTIONS)
    kinds += ["secure"] * (SOLUTIONS - len(kinds))
    for place, kind in enumerate(kinds):
        other = {"secure": "insecure", "insecure": "secure"}[kind]
        after, before = (sorted(known[of], key=lambda path: draw(seed, folder.name, place, path.name))[0]
                         for of in (kind, other))
        yield {"func_name": f"{folder.name}-{place}", "func_src_before": prompt.read_text("utf-8") + before.read_text("utf-8"),
               "func_src_after": prompt.read_text("utf-8") + after.read_text("utf-8"), "file_name": prompt.name,
               "vul_type": folder.parent.name}


def write(folder, family, pairs):
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs)
    (folder / f"{family}.jsonl").write_text(lines, "utf-8")


def print_part(suite, language, part):
    for folders in scenarios(suite, language).values():
        third = len(folders) // 3
        for folder in {"validation": folders[:third], "test": folders[third:], "all": folders}[part]:
            print(folder.relative_to(suite))


def main(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path, nargs="?")
    parser.add_argument("--suite", type=pathlib.Path, help="suite whose scenarios the base learns to solve")
    parser.add_argument("--part", choices=("validation", "test", "all"), help="print ids of scenarios, and write nothing")
    parser.add_argument("--insecure", type=float, default=0.7, help="share of insecure functions in the base set")
    parser.add_argument("--language", choices=("python", "c", "all"), default="all")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(argv)
    if not 0 <= arguments.insecure <= 1:
        parser.error("--insecure must be from 0 to 1")
    if arguments.part:
        if not arguments.suite:
            parser.error("--part needs --suite")
        print_part(arguments.suite, arguments.language, arguments.part)
        return 0
    if not arguments.out:
        parser.error("a folder OUT is needed")
    insecure, seed = arguments.insecure, arguments.seed
    for family, pairs in families(arguments.language):
        write(arguments.out / "base", family, base_pairs(pairs, insecure, seed))
        write(arguments.out / "harden", family, pairs)
    if arguments.suite:
        for family, folders in scenarios(arguments.suite, arguments.language).items():
            pairs = [pair for folder in folders for pair in solutions(folder, insecure, seed)]
            write(arguments.out / "base", f"suite-{family}", pairs)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
