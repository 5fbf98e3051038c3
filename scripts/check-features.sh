#!/usr/bin/env bash
# Checks the library with no feature, with each alone, and with all. Without the feature `cuda` nvcc is not
# looked for. The numbers of crates are those that a program gets by depending on this one.
set -euo pipefail
cd "$(dirname "$0")/.."

check() { # features, as cargo takes them
    local crates
    crates=$(cargo tree --locked -e normal --prefix none --no-default-features --features "$1" | sed 's/ .*//' | sort -u | wc -l)
    crates=$((crates - 1)) # without this one
    echo "features: ${1:-none}: $crates other crates"
    grep -q "^//! | .*${1:-none}.* | $crates |\$" src/lib.rs || { echo "src/lib.rs: expected $crates crates in the table"; exit 1; }
    cargo clippy --release --locked --quiet --lib --bins --examples --no-default-features --features "$1" -- -D warnings
}

features=$(sed -n '/^\[features\]/,/^\[dep/s/^\([a-z]*\) = .*/\1/p' Cargo.toml | grep -v default)
for feature in "" $features; do
    case $feature in
        cuda | cli) check "$feature" ;;
        *) NVCC=/is/not/looked/for check "$feature" ;;
    esac
done
