"""Join judged runs that differ in the training seed into one, whose scenarios have the samples of all.

    python3 data/headline/pool.py OUT RUN...

OUT gets samples.jsonl and verdicts.jsonl with the samples of each scenario numbered anew, and the first run's
references.jsonl; `dg-run eval judge OUT/samples.jsonl` seals it and judges nothing again.  Exit code 0, or 2: usage.
"""

import itertools
import json
import pathlib
import shutil
import sys


def lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def write(path, records):
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), "utf-8")


def pooled(runs, name):
    """The lines of all runs, scenario by scenario."""
    records = [(record["id"], place, record["sample"], record)
               for place, run in enumerate(runs) for record in lines(run / name)]
    for _, of_scenario in itertools.groupby(sorted(records, key=lambda found: found[:3]), key=lambda found: found[0]):
        for number, (*_, record) in enumerate(of_scenario):
            yield dict(record, sample=number)


def main(argv):
    if len(argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    out, *runs = map(pathlib.Path, argv)
    out.mkdir(parents=True, exist_ok=True)
    for name in ("samples.jsonl", "verdicts.jsonl"):
        write(out / name, pooled(runs, name))
    shutil.copy(runs[0] / "references.jsonl", out / "references.jsonl")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
