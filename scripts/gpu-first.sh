#!/usr/bin/env bash
# The first minutes on a GPU: runs what is worth most first, from a pack of scripts/gpu-pack.sh, and writes what was
# predicted beside what was measured. Needs a driver, and nothing else.
#
# usage: gpu-first.sh [--emulated] [--seconds N] PACK [REPORT]
#
#   --emulated   runs everything once and small on the pack's own emulator, to rehearse; nothing is timed
#   --seconds N  ends within N seconds (720); each part has a limit of its own besides
#
# Unpacks into the folder gpu-first here, where logs stay as well. The report (gpu-first.md) is written anew before and
# after each part, so it is complete whenever this is stopped. Ends with 0 if nothing has failed.
set -euo pipefail

fail() {
    echo "gpu-first: $*" >&2
    exit "${code:-1}"
}

emulated=
seconds=720
while [[ ${1:-} == --* ]]; do
    case $1 in
        --emulated) emulated=yes ;;
        --seconds)
            [[ ${2:-} =~ ^[0-9]+$ ]] || code=2 fail "--seconds: expected a number, found ${2:-nothing}"
            seconds=$2
            shift
            ;;
        *) code=2 fail "there is no option $1; see the head of this file" ;;
    esac
    shift
done
[[ $# == 1 || $# == 2 ]] || code=2 fail "expected the file of make gpu-pack; see the head of this file"
pack=$1
report=${2:-gpu-first.md}
[[ -r $pack ]] || code=3 fail "$pack cannot be read: expected the file of make gpu-pack"

rows=
details=
failed=0
device="no device yet"
commit=
child=

write_report() {
    {
        echo "# First contact with ${device}${emulated:+ (emulated)}"
        echo
        if [[ -n $emulated ]]; then
            echo "**Emulated**: a rehearsal with small sizes, which says nothing about time: nothing here was timed."
        else
            echo "Predicted numbers are those of \`tests/roofline\`; all others were measured on this machine."
        fi
        echo
        echo "$(date -u +'%Y-%m-%d %H:%M') UTC, commit ${commit:-unknown}, $SECONDS of $seconds seconds used."
        echo
        echo "| part | outcome | seconds |"
        echo "|---|---|---|"
        printf '%s' "$rows"
        [[ -z ${1:-} ]] || echo "| $1 | running | |"
        printf '%s' "$details"
    } > "$report.partial"
    mv "$report.partial" "$report"
}

# section TITLE FORM LOG: what a part has printed, as the Markdown that it is or as text.
section() {
    case $2 in
        markdown) details+=$'\n'"## $1"$'\n\n'"$(tail -c 100000 "$3")"$'\n' ;;
        text) details+=$'\n'"## $1"$'\n\n```text\n'"$(tail -c 20000 "$3")"$'\n```\n' ;;
    esac
}

stop() {
    if [[ -n $child ]]; then
        kill "$child" 2> /dev/null || true
        wait "$child" || true
        section "${running[@]}"
        rows+="| ${running[0]} | stopped | |"$'\n'
    fi
    rows+="| stopped by a signal | | |"$'\n'
    write_report
    exit 130
}
trap stop INT TERM HUP

# outcome TITLE OUTCOME SECONDS
outcome() {
    rows+="| $1 | $2 | $3 |"$'\n'
    write_report
    echo "gpu-first: $1: $2" >&2
}

# part TITLE LIMIT FORM COMMAND…: runs a command for at most LIMIT seconds, and puts what it prints into the report,
# as the Markdown that it is or as text. Sets `result`.
part() {
    local title=$1 limit=$2 form=$3 started=$SECONDS left=$((seconds - SECONDS))
    local log=$logs/$((++count)).log
    shift 3
    result=1
    if ((left <= 0)); then
        outcome "$title" "not run: no time is left" 0
        return
    fi
    ((limit < left)) || limit=$left
    running=("$title" "$form" "$log")
    write_report "$title"
    timeout --kill-after=5 "$limit" "$@" > "$log" 2>&1 < /dev/null &
    child=$!
    result=0
    wait "$child" || result=$?
    child=
    section "$title" "$form" "$log"
    case $result in
        0) outcome "$title" passed $((SECONDS - started)) ;;
        124 | 137) outcome "$title" "stopped after its $limit seconds" $((SECONDS - started)) ;;
        *)
            failed=1
            outcome "$title" "FAILED ($result)" $((SECONDS - started))
            ;;
    esac
}
count=0

# The programs of the pack, by its list.
unpack() {
    mkdir -p gpu-first/pack gpu-first/logs
    tar -C gpu-first/pack -xf "$pack"
    LD_LIBRARY_PATH=gpu-first/pack/xz gpu-first/pack/xz/xz -dc gpu-first/pack/content.tar.xz | tar -C gpu-first -xf -
}
unpack || code=3 fail "$pack cannot be unpacked: expected the file of make gpu-pack, and 400 MB of room here"
home=$PWD/gpu-first
logs=$home/logs
commit=$(< "$home/commit")
built() {
    echo "$home/target/$(sed -n "s/^$1 $2 //p" "$home/target/gpu-check.list" | tail -n 1)"
}
dg_run=$(built bin dg-run) ops=$(built test ops) kernels=$(built test kernels) cuda=$(built test cuda)
bench=$(built bench cuda)

# Tests look for their files there.
export CARGO_MANIFEST_DIR=$home RUST_BACKTRACE=0
# The random models are written to files, 15 GB for 7B: here, or in memory where the disk has no room.
model_kib=18000000
TMPDIR=$home/tmp
mkdir -p "$TMPDIR"
free() {
    df -Pk "$1" 2> /dev/null | awk 'NR == 2 { print $4 }'
}
if (($(free "$TMPDIR") < model_kib)) && [[ -w /dev/shm ]] && (($(free /dev/shm) > model_kib)); then
    TMPDIR=$(mktemp -d /dev/shm/gpu-first.XXXXXX)
fi
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
unset DG_TEST_DEVICE DG_EMULATOR
if [[ -n $emulated ]]; then
    emulator=$(built lib emulator)
    on_device=(env "DG_EMULATOR=$emulator")
    measure=("${on_device[@]}" "$bench" --test)
    # Some of each kind: the others take minutes on the emulator, and have run where it was built.
    operations=(cuda::norm cuda::embedding)
    programs=(product)
    whole=(recording)
else
    export DG_TEST_DEVICE=gpu
    on_device=(env)
    measure=("$bench")
    operations=(cuda)
    programs=()
    whole=()
    # Where cuBLASLt and NCCL may be besides the folders that the system searches.
    libraries=(-name 'libcublasLt.so.1[23]' -o -name libnccl.so.2)
    found=$(timeout 5 find /usr/local /usr/lib /opt "$HOME" \( "${libraries[@]}" \) -printf '%h:' 2> /dev/null || true)
    export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}${found%:}"
fi

one_test() {
    part "$1" "$2" text "$3" --exact "$4" --test-threads=1 --nocapture
}

# Without the table of kernels.
part "(a) dg-run info" 30 text bash -o pipefail -c '"$@" | sed "/^kernel /,\$d"' info "${on_device[@]}" "$dg_run" info
[[ -e $logs/1.log ]] || exit "$failed" # unpacking took all the time
device=$(sed -n 's/^CUDA device 0: //p' "$logs/1.log")
if [[ -z $device ]]; then
    device="no GPU"
    write_report
    code=5 fail "dg-run info finds no GPU; see $report"
fi
if [[ -z $emulated ]] && command -v nvidia-smi > /dev/null; then
    part "(a) nvidia-smi" 15 text nvidia-smi -q -d CLOCK,POWER,MEMORY
fi
one_test "(a) a product" 45 "$ops" cuda::linear::forward
one_test "(a) a training step's gradients beside the CPU's" 60 "$cuda" \
    cuda::training::every_gradient_on_cuda_is_that_of_the_cpu
part "(b) constants of the machine" 60 markdown "${measure[@]}" machine
part "(c) products beside their predictions" 90 markdown "${measure[@]}" products
part "(c) other kernels" 75 markdown "${measure[@]}" kernels
part "(d) training steps and decoding" 210 markdown "${measure[@]}" steps
part "(e) tests of operations" 90 text "$ops" "${operations[@]}" --test-threads=1
part "(e) tests of kernels" 30 text "$kernels" "${programs[@]}" --test-threads=1
part "(e) tests of the program" 60 text "$cuda" "${whole[@]}" --test-threads=1
if [[ -n $emulated ]]; then
    outcome "(f) compute-sanitizer" "skipped: it needs a GPU" 0
elif ! command -v compute-sanitizer > /dev/null; then
    outcome "(f) compute-sanitizer" "skipped: it is not installed" 0
else
    for tool in memcheck racecheck synccheck initcheck; do
        part "(f) compute-sanitizer, $tool, of a training step" 45 text compute-sanitizer --tool "$tool" \
            --error-exitcode 9 "$cuda" --exact cuda::training::every_gradient_on_cuda_is_that_of_the_cpu
    done
fi
if grep -q '^NCCL: none' "$logs/1.log"; then
    outcome "(g) NCCL, one rank" "skipped: it is not installed" 0
else
    part "(g) NCCL, one rank" 30 text "$dg_run" dist check --dist nccl
fi
echo "gpu-first: $report" >&2
exit "$failed"
