#!/usr/bin/env bash
# Puts MPICH at DEST, from the Python package of scripts/mpi.txt: 13 MB. DEST (mpi in cargo's target folder if
# not given, where the tests look) appears complete or not at all; this very version is left as it is. dg-run
# finds it by DG_MPI=DEST/lib/libmpi.so.12, and DEST/bin/mpiexec starts ranks.
#
# usage: scripts/get-mpi.sh [DEST]
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
dest=${1:-${CARGO_TARGET_DIR:-$root/target}/mpi}
wanted=$root/scripts/mpi.txt

say() { echo "get-mpi: $*" >&2; }

# The list is copied in last, so that a folder with it is a whole installation of that list.
if cmp --silent "$wanted" "$dest/mpi.txt"; then
    say "$dest is there"
    exit
fi
if [ -e "$dest" ] && [ ! -e "$dest/mpi.txt" ]; then
    say "$dest exists, but is not from here; move it away and try again"
    exit 1
fi

mkdir -p "$(dirname "$dest")"
scratch=$(mktemp -d "$dest.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
export PIP_ROOT_USER_ACTION=ignore # or pip warns; nothing of the system is touched

say "installing MPICH into $dest"
# Not --target, which leaves out the library and the programs of this package.
if ! python3 -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: \
    --no-compile --ignore-installed --requirement "$wanted" --prefix "$scratch" < /dev/null >&2; then
    say "pip could not install it; or install MPICH or Open MPI yourself"
    exit 1
fi
cp "$wanted" "$scratch/mpi.txt"
chmod 755 "$scratch"
rm -rf "$dest"
mv "$scratch" "$dest"
