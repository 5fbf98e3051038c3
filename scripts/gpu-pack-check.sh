#!/usr/bin/env bash
# Rehearses scripts/gpu-first.sh on the emulator: from the pack, in an empty folder, in an empty environment, and as
# another user where this one may become one. Then stops it early, by a signal and by its time: the report has to be
# complete all the same.
#
# usage: scripts/gpu-pack-check.sh [PACK]    (gpu-pack.tar in the target folder)
set -euo pipefail
cd "$(dirname "$0")/.."
pack=${1:-${CARGO_TARGET_DIR:-target}/gpu-pack.tar}

predicted=no
! grep -q '^h100;7B;step;swiglu_backward;' tests/roofline/predicted.csv || predicted=yes
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
fail() {
    echo "gpu-pack-check: $*" >&2
    [[ ! -e $folder/report.md ]] || cat "$folder/report.md" >&2
    exit 1
}

cp "$pack" "$folder/pack.tar"
tar -C "$folder" -xf "$pack" ./gpu-first.sh
user=()
if [[ $(id -u) == 0 ]]; then
    nobody=65534
    chown -R "$nobody:$nobody" "$folder"
    user=(setpriv --reuid="$nobody" --regid="$nobody" --clear-groups)
elif [[ ${DG_REQUIRE_ALL:-} == 1 ]]; then
    fail "DG_REQUIRE_ALL=1, and this user cannot become another"
fi
cd "$folder"
first() {
    rm -rf gpu-first report.md
    exec "${user[@]}" env -i PATH=/usr/bin:/bin HOME="$folder" ./gpu-first.sh --emulated "$@" pack.tar report.md
}
# A row of the report's table of parts.
row() {
    grep -q "^| $1.* | $2" report.md || fail "$1: expected $2"
}

SECONDS=0
(first) || fail "the rehearsal ends with $?"
took=$SECONDS
grep -q '^# First contact with .*(emulated)' report.md || fail "the report does not say that it is emulated"
for part in "(a) dg-run info" "(a) a product" "(a) a training step" "(b)" "(c) products" "(c) other" "(d)" \
    "(e) tests of operations" "(e) tests of kernels" "(e) tests of the program"; do
    row "$part" passed
done
row "(f)" skipped
row "(g)" skipped
for case in "memory, read once" "gate and up, dX" "rms_norm" "training step, tiny, base cached" \
    "decoding pass, tiny, 100 sequences"; do
    row "$case" "not timed"
done
# Predictions stand there whatever was measured.
if [[ $predicted == yes ]]; then
    row "gate and up" "[0-9.]\+ | not timed"
    row "swiglu_backward" "[0-9.]\+ | not timed"
fi
! grep -qE '^\|.*\| [0-9.]+ (TFLOP|GB|TB|tokens)' report.md || fail "the report has a time of the emulator"
! grep -q ' 0 passed' report.md || fail "a part ran no test"

(first) 2> said &
running=$!
until grep -q 'a product: passed' said || ! kill -0 "$running" 2> /dev/null; do sleep 0.1; done
kill -TERM "$running"
wait "$running" && fail "a signal is no error" || [[ $? == 130 ]] || fail "a signal ends with $?, expected 130"
row "(a) a product" passed
row "stopped by a signal" ""

(first --seconds $((took / 3))) || fail "a time that is over ends with $?"
grep -qE 'stopped after its|not run: no time is left' report.md || fail "a third of the time is enough"

code=0
(exec ./gpu-first.sh --emulated nothing.tar) 2> said || code=$?
[[ $code == 3 ]] || fail "a pack that is not there ends with $code, expected 3"
echo "gpu-pack-check: rehearsed with $(stat -c %s pack.tar) bytes"
