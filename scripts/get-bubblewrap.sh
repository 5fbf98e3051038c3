#!/usr/bin/env bash
# Sees to it that there is bubblewrap, in which evaluations run code: one that is installed, or Debian's package,
# installed where that is possible.
#
# usage: scripts/get-bubblewrap.sh
set -euo pipefail

command -v bwrap > /dev/null && exit
"$(dirname "$0")/install-package.sh" bubblewrap && command -v bwrap > /dev/null && exit
echo "get-bubblewrap: there is no bwrap, and it cannot be installed from here: install the package bubblewrap" >&2
exit 1
