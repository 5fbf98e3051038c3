#!/usr/bin/env bash
# Runs all tests and benches of CUDA on this machine's GPU, from a build that was made elsewhere, and writes a
# report.
#
#   scripts/gpu-check.sh build       where there are cargo and nvcc: builds, and lists what was built
#   scripts/gpu-check.sh [REPORT]    where there is a GPU, without network or cargo (docs/gpu-report.md)
#
# The target folder is CARGO_TARGET_DIR or target/. With DG_EMULATOR=path/to/libcuda_emulator.so everything
# runs on the emulator instead, to check this script; such a report has no timings. DG_CHECK_FILTER has parts
# of the names of those tests that are to run. Ends with 0 if all is well.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
list=$target/gpu-check.list
tests=(ops kernels cuda)

# The executables and the emulator, as "kind name path": a path is relative to the target folder, so that this
# can be carried about.
build() {
    local messages=$logs/messages
    # As make test builds them, so that what it has built is there already.
    cargo test --release --workspace --locked --message-format=json --no-run "${tests[@]/#/--test=}" --bench cuda \
        > "$messages"
    mkdir -p "$target"
    local root
    root=$(cd "$target" && pwd)
    {
        sed -nE 's/.*"kind":\["(test|bench|bin)"\][^}]*"name":"(ops|kernels|cuda|dg-run)".*"executable":"([^"]+)".*/\1 \2 \3/p' \
            "$messages"
        sed -nE 's/.*"kind":\[[^]]*"cdylib"[^]]*\][^}]*"name":"cuda_emulator".*"filenames":\[[^]]*"([^"]+\.so)".*/lib emulator \1/p' \
            "$messages"
    } | sort -u | sed "s| $root/| |" > "$list"
    for name in "${tests[@]/#/test }" "bench cuda" "bin dg-run" "lib emulator"; do
        grep -q "^$name " "$list" || fail "the build made no $name; see $list"
    done
    echo "built and listed in $list; carry the repository with it, then run scripts/gpu-check.sh; or scripts/gpu-pack.sh"
}

fail() {
    echo "gpu-check: $*" >&2
    exit 1
}

# The path of a built thing, from this folder.
built() {
    local path
    path=$(sed -n "s/^$1 $2 //p" "$list" | tail -n 1)
    [[ -n $path && -e $target/$path ]] || fail "no $1 $2 in $target: run make gpu-build, and carry all of $target/release"
    echo "$target/$path"
}

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
trap 'exit 130' INT TERM

if [[ ${1:-} == build ]]; then
    build
    exit
fi

report=${1:-docs/gpu-report.md}
[[ -e $list ]] || fail "no $list: run make gpu-build where there is cargo"
dg_run=$(built bin dg-run)

# The tests look for files here.
export CARGO_MANIFEST_DIR=$PWD

emulated=${DG_EMULATOR:-}
if [[ -n $emulated ]]; then
    unset DG_TEST_DEVICE
else
    export DG_TEST_DEVICE=gpu
fi
export RUST_BACKTRACE=0

filter=${DG_CHECK_FILTER:-}
failed=0
rows=
details=

# check NAME COMMAND…: runs it, keeps what it prints, notes the outcome.
check() {
    local name=$1 log="$logs/$((++count))" outcome=passed
    shift
    echo "gpu-check: $name" >&2
    if ! "$@" > "$log" 2>&1 < /dev/null; then
        outcome=FAILED
        failed=1
    fi
    local result skipped
    result=$(grep -oE '[0-9]+ passed; [0-9]+ failed' "$log" | tail -n 1 || true)
    skipped=$(grep -c '^SKIPPED' "$log" || true)
    if [[ $result == "0 passed"* && -z $filter ]]; then
        outcome="FAILED, as nothing ran"
        failed=1
    fi
    [[ $skipped == 0 ]] || result+="; $skipped skipped"
    rows+="| $name | $outcome | $result |"$'\n'
}
count=0

# section TITLE LOG: what was printed, in the report.
section() {
    details+=$'\n'"## $1"$'\n\n```text\n'"$(cat "$2")"$'\n```\n'
}

check "dg-run info" "$dg_run" info
section "dg-run info" "$logs/$count"
if [[ -z $emulated ]]; then
    check "nvidia-smi" nvidia-smi
    section "nvidia-smi" "$logs/$count"
    grep -q '^CUDA device 0' "$logs/1" || fail "dg-run info finds no GPU: $(grep '^CUDA devices' "$logs/1")"
fi
for test in "${tests[@]}"; do
    program=$(built test "$test")
    case $test in
        ops) check "tests: operations" "$program" ${filter:-cuda} --test-threads=1 ;;
        *) check "tests: $test" "$program" $filter --test-threads=1 ;;
    esac
    if grep -q '^SKIPPED' "$logs/$count"; then
        details+=$'\n'"Skipped in $test:"$'\n\n```text\n'"$(grep '^SKIPPED' "$logs/$count")"$'\n```\n'
    fi
    if [[ -n $emulated ]]; then
        sed -i -E 's/; finished in [0-9.]+s//' "$logs/$count"
    fi
    grep -q '0 failed' "$logs/$count" || section "Output of $test" "$logs/$count"
done
bench=$(built bench cuda)
if [[ -n $emulated ]]; then
    check "bench: every case once" "$bench" --test
    grep -q FAILED <<< "$(tail -n 1 <<< "${rows%$'\n'}")" && section "Output of the bench" "$logs/$count"
else
    check "bench" "$bench" --bench
    section "Benches" "$logs/$count"
fi

device=$(sed -n 's/^CUDA device 0: //p' "$logs/1")
mkdir -p "$(dirname "$report")"
{
    echo "# Check on ${device:-no device}"
    echo
    if [[ -n $emulated ]]; then
        echo "On the emulator, which says nothing about time: there are no timings here."
    else
        echo "On a GPU, from a build carried to it. Not run, as they need the emulator or nvcc: budgets, mutation, ptxas."
    fi
    echo
    echo "$(date -u +%Y-%m-%d), $("$dg_run" --version), $(git rev-parse --short HEAD 2> /dev/null || cat commit 2> /dev/null || echo "no git")${filter:+, tests named *$filter* only}"
    echo
    echo "| what | outcome | tests |"
    echo "|---|---|---|"
    printf '%s' "$rows"
    printf '%s' "$details"
} > "$report"
echo "gpu-check: $report" >&2
exit "$failed"
