"""Join judged runs that differ in the seeds of training and of samples into one, whose scenarios have all samples.

    python3 data/headline/pool.py OUT RUN...

OUT gets samples.jsonl and verdicts.jsonl with the samples of each scenario numbered anew, a sampling.json with the
adapters of all, and the first run's references.jsonl; `dg-run eval judge OUT/samples.jsonl` seals it and judges nothing
again.  Exit code 0, or 2: usage.
"""

import json
import pathlib
import shutil
import sys


def lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


def write(path, records):
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), "utf-8")


def numbers(runs):
    """The new number of each sample, by place of the run, scenario and old number; scenario by scenario."""
    samples = sorted((line["id"], place, line["sample"])
                     for place, run in enumerate(runs) for line in lines(run / "samples.jsonl"))
    of_scenario, found = {}, {}
    for name, place, sample in samples:
        found[place, name, sample] = of_scenario.setdefault(name, 0)
        of_scenario[name] += 1
    return found


def pooled(runs, name, new):
    """The lines of all runs that are of one of the samples, each with its new number."""
    of_samples = [dict(line, sample=new[place, line["id"], line["sample"]])
                  for place, run in enumerate(runs) for line in lines(run / name)
                  if (place, line["id"], line["sample"]) in new]
    return sorted(of_samples, key=lambda line: (line["id"], line["sample"]))


def settings(runs):
    """What the samples are: as the first run's, but for their number, their seeds and the adapters."""
    all_of = [json.loads((run / "sampling.json").read_text("utf-8")) for run in runs]
    number = sum(one["num_samples"] for one in all_of)
    adapters = {of: [one[of] for one in all_of] for of in ("adapter", "expert_adapter") if all_of[0].get(of)}
    generate = dict(all_of[0]["generate"], seed=[one["generate"]["seed"] for one in all_of])
    return dict(all_of[0], num_samples=number, generate=generate, **adapters, key=None)


def main(argv):
    if len(argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    out, *runs = map(pathlib.Path, argv)
    out.mkdir(parents=True, exist_ok=True)
    new = numbers(runs)
    for name in ("samples.jsonl", "verdicts.jsonl"):
        write(out / name, pooled(runs, name, new))
    (out / "sampling.json").write_text(json.dumps(settings(runs), indent=2) + "\n", "utf-8")
    shutil.copy(runs[0] / "references.jsonl", out / "references.jsonl")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
