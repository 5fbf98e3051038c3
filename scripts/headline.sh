#!/usr/bin/env bash
# The controlled experiment: which way of hardening makes a model's code safer and keeps it correct? A small model is
# made competent and insecure on data/eval itself, every method hardens it on the same pairs, none of which resembles a
# prompt of data/eval, and what it completes those prompts with is run and attacked. docs/headline/README.md says what
# is compared, and what that shows.
#
# usage: scripts/headline.sh MODEL RUNS          Python, one training seed
#        scripts/headline.sh MODEL RUNS trials   what its learning rates were chosen by
#        scripts/headline.sh MODEL RUNS full     C as well, learning rates by trial, more methods, three training seeds
#
# What is finished stays in RUNS: the same call goes on where a signal or an error has stopped it.
set -euo pipefail

usage="usage: scripts/headline.sh MODEL RUNS [trials|full]"
model=$(realpath "${1:?$usage}")
size=${3:-small}
case $size in
    small | trials) language=python ;;
    full) language=all ;;
    *) echo "$usage" >&2 && exit 2 ;;
esac
mkdir -p "${2:?$usage}/$language"
runs=$(realpath "$2/$language")
cd "$(dirname "$0")/.."
suite=data/eval
base=$runs/base-model
lora=(--target-modules all-linear)
# What is unknown counts as not secure, and the table says how much that is.
unknown_too=(--allow-unknown 1000000)

dg-run() { "${CARGO_TARGET_DIR:-target}/release/dg-run" "$@"; }
title() { printf '\n== %s\n\n' "$*"; }
recipe() { python3 data/headline/recipe.py --suite "$suite" --language "$language" "$@"; }

# Trains an adapter, or goes on: FOLDER, and options of train.
train() {
    local folder=$1 resume=()
    shift
    [ -e "$folder/adapter/manifest.json" ] && return
    title "Train $(basename "$folder")"
    compgen -G "$folder/checkpoint-*" >/dev/null && resume=(--resume-from-checkpoint)
    dg-run train --output-dir "$folder" --num-epochs 4 --batch-size 8 --gradient-accumulation-steps 1 \
        --max-seq-len 512 --save-total-limit 1 "$@" "${resume[@]}"
}

# The insecure base: cross-entropy alone, on functions of the pairs and of the suite, most of them insecure.
make_base() {
    [ -e "$base/config.json" ] && return
    recipe "$runs/data"
    train "$runs/base-adapter" --model "$model" --data "$runs/data/base" --method ce "${lora[@]}" --lora-dropout 0 \
        --learning-rate 2e-3
    dg-run export --model "$model" --adapter "$runs/base-adapter" --merge --out "$base"
}

# Hardens the base: METHOD, RATE, SEED. Sets `hardened` to the options of eval run that use the result.
harden() {
    local method=$1 rate=$2 seed=$3 options=() adapter=$runs/$1-$2-$3
    [ "$method" = sven ] || options=("${lora[@]}")
    case $method in
        cosec) hardened=(--expert-adapter "$adapter") ;;
        *) hardened=(--adapter "$adapter") ;;
    esac
    train "$adapter" --model "$base" --data "$runs/data/harden" --method "$method" --learning-rate "$rate" \
        --seed "$seed" "${options[@]}"
}

# Samples and judges: FOLDER, name of the METHOD in tables, PART of the scenarios, number of SAMPLES, options of eval run.
evaluate() {
    local folder=$1 method=$2 part=$3 samples=$4 scenarios ids
    shift 4
    [ -e "$folder/eval.json" ] && return
    title "Evaluate $(basename "$folder")"
    ids=$(recipe --part "$part")
    mapfile -t scenarios <<<"$ids"
    # Verdicts on references hold for every run.
    mkdir -p "$folder"
    cp --no-clobber "$runs/base/references.jsonl" "$folder" 2>/dev/null || true
    dg-run eval run --model "$base" --suite "$suite" --method "$method" --num-samples "$samples" \
        "${unknown_too[@]}" --output-dir "$folder" --resume "${scenarios[@]/#/--only=}" "$@"
}

# Sets `tried` to judged runs of METHOD with RATES on the validation scenarios, unguided, and `rate` to that of the best.
choose_rate() {
    local method=$1
    tried=()
    shift
    for rate in "$@"; do
        harden "$method" "$rate" 1
        tried+=("$runs/validation-$method-$rate")
        evaluate "${tried[-1]}" "$method, $rate" validation 4 "${hardened[@]}"
    done
    rate=$(python3 data/headline/best.py "${tried[@]}")
    rate=${rate#"$runs/validation-$method-"}
}

# A row of the table: NAME, METHOD and RATE, and options of eval run. With every training seed.
row() {
    local name=$1 method=$2 rate=$3 of_seeds=()
    shift 3
    for seed in "${seeds[@]}"; do
        harden "$method" "$rate" "$seed"
        of_seeds+=("$runs/$name-$seed")
        evaluate "${of_seeds[-1]}" "$name" "$part" "$samples" "${hardened[@]}" --seed $((41 + seed)) "$@"
    done
    if [ ${#of_seeds[@]} = 1 ]; then
        rows+=("${of_seeds[0]}")
        return
    fi
    rows+=("$runs/$name")
    [ -e "$runs/$name/eval.json" ] && return
    python3 data/headline/pool.py "$runs/$name" "${of_seeds[@]}"
    dg-run eval judge "$runs/$name/samples.jsonl" --suite "$suite" --method "$name" "${unknown_too[@]}" --quiet
}

small() {
    part=all seeds=(1) samples=4
    make_base
    evaluate "$runs/base" base "$part" "$samples"
    row cross-entropy ce 5e-4
    row deepguard deepguard 2e-4
    row deepguard-guided deepguard 2e-4 --guidance-strength 1
    row sven sven 1e-2
}

trials() {
    compared=$runs/trials
    make_base
    rows=("$runs/validation-base")
    evaluate "${rows[0]}" base validation 4
    choose_rate deepguard 2e-4 5e-4
    rows+=("${tried[@]}")
    choose_rate ce 2e-4 5e-4
    rows+=("${tried[@]}")
    choose_rate sven 3e-3 1e-2
    rows+=("${tried[@]}")
}

full() {
    part=test seeds=(1 2 3) samples=4
    make_base
    evaluate "$runs/base" base "$part" $((${#seeds[@]} * samples))
    choose_rate ce 2e-4 5e-4 1e-3
    row cross-entropy ce "$rate"
    choose_rate deepguard 1e-4 2e-4 5e-4
    row deepguard deepguard "$rate"
    for strength in 0.25 0.5 1; do
        row "deepguard-guided-$strength" deepguard "$rate" --guidance-strength "$strength"
    done
    choose_rate sven 3e-3 1e-2 3e-2
    row sven sven "$rate"
    choose_rate safecoder 1e-4 2e-4 5e-4
    row safecoder safecoder "$rate"
    choose_rate cosec 2e-4 5e-4 1e-3
    row cosec cosec "$rate"
}

rows=("$runs/base")
compared=$runs/compared
"$size"
title "Compare"
dg-run eval compare "${rows[@]}" --output-dir "$compared"
cat "$compared/eval.md"
