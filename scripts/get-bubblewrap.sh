#!/usr/bin/env bash
# Sees to it that there is bubblewrap, in which evaluations run code: one that is installed, or Debian's package,
# installed where that is possible.
#
# usage: scripts/get-bubblewrap.sh
set -euo pipefail

package=bubblewrap

command -v bwrap > /dev/null && exit
if command -v apt-get > /dev/null; then
    as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo -n)
    echo "get-bubblewrap: installing Debian's package $package" >&2
    "${as_root[@]}" apt-get install --yes --no-install-recommends "$package" >&2 || {
        "${as_root[@]}" apt-get update >&2
        "${as_root[@]}" apt-get install --yes --no-install-recommends "$package" >&2
    }
fi
command -v bwrap > /dev/null && exit
echo "get-bubblewrap: there is no bwrap, and it cannot be installed from here: install the package $package" >&2
exit 1
