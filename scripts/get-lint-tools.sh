#!/usr/bin/env bash
# Puts the programs of scripts/lint-tools.txt, Python packages with pinned checksums, into the folder
# lint-tools of cargo's target folder, and prints the folder of their executables. Where these very versions
# are, nothing is done.
#
# usage: scripts/get-lint-tools.sh
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
dest=${CARGO_TARGET_DIR:-$root/target}/lint-tools
list=$root/scripts/lint-tools.txt
. "$root/scripts/pinned-packages.sh"

fill() {
    if ! pip_install "$list" --target "$1"; then
        echo "get-lint-tools: pip could not install the programs of $list" >&2
        return 1
    fi
    # Of clang-format, the program itself: the script in its place needs Python to find the package.
    ln -sf ../clang_format/data/bin/clang-format "$1/bin/clang-format"
}

pinned_packages "$list" "$dest"
echo "$dest/bin"
