#!/usr/bin/env bash
# Puts the programs of scripts/lint-tools.txt, Python packages with pinned checksums, into the folder
# lint-tools of cargo's target folder, and prints the folder of their executables. Where these very versions
# are, nothing is done.
#
# usage: scripts/get-lint-tools.sh
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
dest=${CARGO_TARGET_DIR:-$root/target}/lint-tools
wanted=$root/scripts/lint-tools.txt

# The list is copied in last, so that a folder with it is a whole installation of that list.
if ! cmp --silent "$wanted" "$dest/lint-tools.txt"; then
    mkdir -p "$(dirname "$dest")"
    scratch=$(mktemp -d "$dest.XXXXXX")
    trap 'rm -rf "$scratch"' EXIT
    export PIP_ROOT_USER_ACTION=ignore # or pip warns; nothing of the system is touched
    if ! python3 -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
        --only-binary :all: --requirement "$wanted" --target "$scratch" < /dev/null >&2; then
        echo "get-lint-tools: pip could not install the programs of $wanted" >&2
        exit 1
    fi
    # Of clang-format, the program itself: the script in its place needs Python to find the package.
    ln -sf ../clang_format/data/bin/clang-format "$scratch/bin/clang-format"
    cp "$wanted" "$scratch/lint-tools.txt"
    rm -rf "$dest"
    mv "$scratch" "$dest"
fi
echo "$dest/bin"
