#!/usr/bin/env bash
# From a base model to guided code in a few minutes: trains a guard on data/train, validates it on data/val,
# scores a held-out function before and after its fix, and completes a prompt without and with guidance.
#
# usage: scripts/demo.sh MODEL [RUN]      DEMO_STEPS=N stops the training after N steps
set -euo pipefail

model=${1:?usage: scripts/demo.sh MODEL [RUN]}
run=${2:-runs/demo}
held_out=data/val/cwe-089.jsonl
prompt=data/prompts/sql.py
cd "$(dirname "$0")/.."

dg-run() { "${CARGO_TARGET_DIR:-target}/release/dg-run" "$@"; }
title() { printf '\n== %s\n\n' "$*"; }

rm -rf "$run"
title "Train adapter and guard on 36 pairs of functions, validate on 12 others"
# Small batches and a high learning rate: two epochs of a small data set are few steps.
dg-run train --model "$model" --data data --output-dir "$run" --num-epochs 2 ${DEMO_STEPS:+--max-steps "$DEMO_STEPS"} \
    --batch-size 2 --gradient-accumulation-steps 1 --learning-rate 1e-3 --max-seq-len 512 --save-total-limit 1

title "Score a held-out function, vulnerable and fixed (mean score of each line; high is secure)"
python3 - "$held_out" "$run" <<'PYTHON'
import json, pathlib, sys
with open(sys.argv[1], encoding="utf-8") as lines:
    pair = json.loads(next(lines))
for version, source in [("vulnerable", "func_src_before"), ("fixed", "func_src_after")]:
    pathlib.Path(sys.argv[2], f"{version}.py").write_text(pair[source], encoding="utf-8")
PYTHON
dg-run score --model "$model" --adapter "$run" "$run/vulnerable.py" "$run/fixed.py"

title "The prompt $prompt"
cat "$prompt"
title "continued without guidance"
dg-run generate --model "$model" --adapter "$run" --prompt-file "$prompt" --max-new-tokens 64
title "continued under guidance"
dg-run generate --model "$model" --adapter "$run" --prompt-file "$prompt" --max-new-tokens 64 --guidance-strength 1
