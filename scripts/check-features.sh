#!/usr/bin/env bash
# Checks the library with no feature and with each alone; `cli`, which has all others, is what `make lint` checks
# anyway. Without the feature `cuda` nvcc is not looked for. The numbers of crates are those that a program gets
# by depending on this one.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
    echo "check-features: $*" >&2
    exit 1
}

count() { # features, as cargo takes them
    local crates
    crates=$(cargo tree --locked -e normal --prefix none --no-default-features --features "$1" | sed 's/ .*//' | sort -u | wc -l)
    crates=$((crates - 1)) # without this one
    echo "features: ${1:-none}: $crates other crates"
    grep -q "^//! | .*${1:-none}.* | $crates |\$" src/lib.rs || fail "src/lib.rs: expected $crates crates in the table"
}

check() { # features, value of NVCC
    local warnings
    warnings=$(NVCC=$2 cargo check --release --locked --quiet --lib --examples --no-default-features --features "$1" 2>&1) ||
        fail "$warnings"
    [ -z "$warnings" ] || fail "warnings with features ${1:-none}: $warnings"
}

features=$(sed -n '/^\[features\]/,/^\[dep/s/^\([a-z]*\) = .*/\1/p' Cargo.toml | grep -v default)
for feature in "" $features; do
    count "$feature"
    case $feature in
        cli) ;;
        cuda) check cuda "" ;; # what is checked does not depend on the kernels
        *) check "$feature" /is/not/looked/for ;;
    esac
done
