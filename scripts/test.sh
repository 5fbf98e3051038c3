#!/usr/bin/env bash
# Runs every test program of the workspace, then the tests in the documentation. Two programs run at a time, as
# most of the time goes to emulated devices that use one core, and the longest begin first. Programs whose tests say
# how long something may take come last, one at a time. A program's output is shown when it ends.
#
# usage: scripts/test.sh
set -euo pipefail
cd "$(dirname "$0")/.."

# Those that take minutes, longest first.
long=(cuda roofline ptxas ops)
# Those with time limits of a few seconds, or less.
timed=(budgets dist runs cli hub deepguard)

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
trap 'exit 130' INT TERM
export logs

# NAME, FOLDER and PROGRAM, by tabs, of each program that cargo makes of tests.
programs() {
    cargo test --release --workspace --locked --no-run --message-format=json-render-diagnostics |
        sed -nE 's|.*"manifest_path":"([^"]+)/Cargo.toml".*"name":"([^"]+)".*"profile":\{[^}]*"test":true\}.*"executable":"([^"]+)".*|\2\t\1\t\3|p'
}

# The programs of these names.
named() {
    for name in "$@"; do
        grep -P "^$name\t" <<< "$list" || { echo "test: cargo makes no test program $name" >&2; exit 1; }
    done
}

# The programs of no list.
others() {
    local names
    names=$(IFS='|' && echo "${long[*]}|${timed[*]}")
    grep -vP "^($names)\t" <<< "$list"
}

# Runs a program in its package's folder, as cargo does.
run() {
    local name=$1 folder=$2 program=$3 log started=$SECONDS code=0
    log=$logs/$(basename "$program")
    (cd "$folder" && CARGO_MANIFEST_DIR=$folder "$program") > "$log" 2>&1 < /dev/null || code=$?
    echo "== $name: $((SECONDS - started)) s, exit code $code"
    cat "$log"
    return "$code"
}
export -f run

# Runs the programs of the standard input, so many at a time.
run_all() {
    tr '\t' '\n' | xargs -P "$1" -d '\n' -n 3 bash -c 'run "$@"' run
}

failed=0
list=$(programs)
{ named "${long[@]}" && others; } | run_all 2 || failed=1
named "${timed[@]}" | run_all 1 || failed=1
cargo test --release --workspace --locked --doc || failed=1
if [[ $failed != 0 ]]; then
    echo "test: failed; look for FAILED above" >&2
fi
exit "$failed"
