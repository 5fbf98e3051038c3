"""Print which judged run has the highest secure-pass@1 over all scenarios; of equals, the first.

    python3 data/headline/best.py RUN...
"""

import json
import pathlib
import sys


def secure_pass(run):
    rates = json.loads((pathlib.Path(run) / "eval.json").read_text("utf-8"))["rates"]
    return next(rate["value"] for rate in rates if (rate["group"], rate["metric"]) == ("all", "secure-pass@1"))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    print(max(sys.argv[1:], key=secure_pass))
