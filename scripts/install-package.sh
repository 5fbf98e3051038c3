#!/usr/bin/env bash
# Installs a package of Debian where that is possible: by root, or by sudo if it asks for no password.
#
# usage: scripts/install-package.sh PACKAGE
set -euo pipefail

package=${1:?usage: scripts/install-package.sh PACKAGE}
as_root=()

command -v apt-get > /dev/null || exit 1
if [ "$(id -u)" != 0 ]; then
    sudo -n true 2> /dev/null || exit 1
    as_root=(sudo -n)
fi
install() { "${as_root[@]}" apt-get install --yes --no-install-recommends "$package" >&2; }

echo "install-package: installing Debian's package $package" >&2
install && exit
"${as_root[@]}" apt-get update >&2
install
