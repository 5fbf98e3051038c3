#!/usr/bin/env bash
# Prints the path of a headless Chromium, which the tests of pages look through: the one named by CHROMIUM, or
# one that is installed. With `install`, as `make browser` calls it, Debian's package is installed where there
# is none.
#
# usage: scripts/get-chromium.sh [install]
set -euo pipefail

package=chromium-headless-shell

say() { echo "get-chromium: $*" >&2; }

installed() {
    local name
    for name in chromium-headless-shell chromium chromium-browser google-chrome-stable google-chrome; do
        command -v "$name" && return
    done
    return 1
}

install() {
    command -v apt-get > /dev/null || return 1
    local as_root=()
    if [ "$(id -u)" != 0 ]; then
        sudo -n true 2> /dev/null || return 1
        as_root=(sudo -n)
    fi
    say "installing Debian's package $package"
    "${as_root[@]}" apt-get install --yes --no-install-recommends "$package" >&2 && return
    "${as_root[@]}" apt-get update >&2 &&
        "${as_root[@]}" apt-get install --yes --no-install-recommends "$package" >&2
}

if [ -n "${CHROMIUM:-}" ]; then
    command -v "$CHROMIUM" && exit
    say "CHROMIUM is $CHROMIUM, which cannot be run"
    exit 1
fi
installed && exit
case ${1:-} in
    install)
        install && installed && exit
        say "there is no Chromium, and it cannot be installed from here: install it, or name one with CHROMIUM=path"
        ;;
    *) say "there is no Chromium: run make browser, or name one with CHROMIUM=path" ;;
esac
exit 1
