#!/usr/bin/env bash
# Puts nvcc and the tools that read its output at DEST, from the Python packages of scripts/cuda-toolkit.txt:
# 110 MB, neither a GPU nor a driver needed. DEST is cuda-toolkit in cargo's target folder if not given, where
# build.rs looks.
#
# usage: scripts/get-cuda-toolkit.sh [DEST]
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
dest=${1:-${CARGO_TARGET_DIR:-$root/target}/cuda-toolkit}
list=$root/scripts/cuda-toolkit.txt
. "$root/scripts/pinned-packages.sh"

fill() {
    echo "get-cuda-toolkit: installing $(grep -c == "$list") packages into $dest" >&2
    if ! pip_install "$list" --target "$1"; then
        echo "get-cuda-toolkit: pip could not install them; or install CUDA 12 or 13 yourself and set NVCC or CUDA_HOME" >&2
        return 1
    fi
    touch "$root/build.rs" # or cargo would not look for nvcc again
}

pinned_packages "$list" "$dest"
