#!/usr/bin/env bash
# Sees to it that there is Slurm, in whose jobs the tests train: one that is installed, or Debian's package, installed
# where that is possible. The tests start daemons of their own.
#
# usage: scripts/get-slurm.sh
set -euo pipefail

is_there() { PATH=$PATH:/usr/sbin command -v slurmctld slurmd srun sbatch > /dev/null; }

is_there && exit
"$(dirname "$0")/install-package.sh" slurm-wlm && is_there && exit
echo "get-slurm: there is no Slurm, and it cannot be installed from here: install the package slurm-wlm" >&2
exit 1
