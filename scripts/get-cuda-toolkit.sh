#!/usr/bin/env bash
# Puts nvcc and the tools that read its output at DEST, from the Python packages of scripts/cuda-toolkit.txt:
# 110 MB, neither a GPU nor a driver needed. DEST (cuda-toolkit in cargo's target folder if not given, where
# build.rs looks) appears complete or not at all; one of these very versions is left as it is.
#
# usage: scripts/get-cuda-toolkit.sh [DEST]
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
dest=${1:-$target/cuda-toolkit}
wanted=$root/scripts/cuda-toolkit.txt

say() { echo "get-cuda-toolkit: $*" >&2; }

# The list is copied in last, so that a folder with it is a whole installation of that list.
if cmp --silent "$wanted" "$dest/cuda-toolkit.txt"; then
    say "$dest is there"
    exit
fi
if [ -e "$dest" ] && [ ! -e "$dest/cuda-toolkit.txt" ]; then
    say "$dest exists, but is not from here; move it away and try again"
    exit 1
fi

mkdir -p "$(dirname "$dest")"
scratch=$(mktemp -d "$(dirname "$dest")/cuda-toolkit.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
export PIP_ROOT_USER_ACTION=ignore # or pip warns; nothing of the system is touched

say "installing $(grep -c == "$wanted") packages into $dest"
if ! python3 -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: \
    --no-compile --requirement "$wanted" --target "$scratch" < /dev/null >&2; then
    say "pip could not install them; or install CUDA 12 or 13 yourself and set NVCC or CUDA_HOME"
    exit 1
fi
cp "$wanted" "$scratch/cuda-toolkit.txt"
chmod 755 "$scratch"
rm -rf "$dest"
mv "$scratch" "$dest"
touch "$root/build.rs" # or cargo would not look for nvcc again
