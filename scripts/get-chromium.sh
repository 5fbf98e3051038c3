#!/usr/bin/env bash
# Prints the path of a headless Chromium, which the tests of pages look through: the one named by CHROMIUM, or
# one that is installed. With `install`, as `make browser` calls it, Debian's package is installed where there
# is none.
#
# usage: scripts/get-chromium.sh [install]
set -euo pipefail

say() { echo "get-chromium: $*" >&2; }

installed() {
    local name
    for name in chromium-headless-shell chromium chromium-browser google-chrome-stable google-chrome; do
        command -v "$name" && return
    done
    return 1
}

if [ -n "${CHROMIUM:-}" ]; then
    command -v "$CHROMIUM" && exit
    say "CHROMIUM is $CHROMIUM, which cannot be run"
    exit 1
fi
installed && exit
case ${1:-} in
    install)
        "$(dirname "$0")/install-package.sh" chromium-headless-shell && installed && exit
        say "there is no Chromium, and it cannot be installed from here: install it, or name one with CHROMIUM=path"
        ;;
    *) say "there is no Chromium: run make browser, or name one with CHROMIUM=path" ;;
esac
exit 1
