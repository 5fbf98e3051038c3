#!/usr/bin/env bash
# Fuzzes every parser of ours, two at a time, and says how many inputs each has seen. What breaks one is left
# in fuzz/artifacts; what is found on the way, in fuzz/corpus.
#
# usage: scripts/fuzz.sh [SECONDS [TARGET...]]      60 seconds each, all targets, if not given
set -euo pipefail
cd "$(dirname "$0")/.."
build=$(realpath -m "${CARGO_TARGET_DIR:-target}/fuzz")
cd fuzz

seconds=${1:-60}
targets=("${@:2}")
if [ ${#targets[@]} = 0 ]; then
    mapfile -t targets < <(sed -n 's/^name = "\(.*\)"$/\1/p' Cargo.toml | tail -n +2)
fi

# No sanitizer: the parsers are safe Rust, and a stable toolchain has none. Kernels are not fuzzed, so nvcc is
# not needed.
export NVCC=
# Most parsers read files: in memory, as far as there is a place for them.
[ ! -w /dev/shm ] || export TMPDIR=/dev/shm
fuzz() { cargo fuzz "$1" -s none --target-dir "$build" "${@:2}"; }

command -v cargo-fuzz > /dev/null || cargo install --quiet --locked cargo-fuzz
fuzz build

run() {
    local target=$1 log=$build/$1.log
    mkdir -p "corpus/$target"
    if fuzz run "$target" "corpus/$target" "seeds/$target" -- -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
        -max_len=16384 > "$log" 2>&1; then
        printf '%-8s %s\n' "$target" "$(grep -o 'Done .*' "$log")"
    else
        grep -A 3 -E 'panicked|ERROR|artifacts/' "$log" | cut -c 1-500 >&2
        return 1
    fi
}

status=0
for ((i = 0; i < ${#targets[@]}; i += 2)); do
    jobs=()
    for target in "${targets[@]:i:2}"; do
        run "$target" &
        jobs+=($!)
    done
    for job in "${jobs[@]}"; do wait "$job" || status=1; done
done
exit $status
