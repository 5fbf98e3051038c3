#!/usr/bin/env bash
# Type-checks the program for other systems and with the oldest Rust that Cargo.toml declares. Toolchains come
# from rustup: one that it cannot fetch is passed over with a word, or, where DG_REQUIRE_TARGETS is set, a
# failure. Programs that run while building (macros, build scripts) are those of any other build in the folder.
set -euo pipefail
cd "$(dirname "$0")/.."

targets=(aarch64-unknown-linux-gnu aarch64-apple-darwin x86_64-pc-windows-gnu)
oldest=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

passed_over() {
    echo "passed over: rustup cannot fetch $1" >&2
    [ -z "${DG_REQUIRE_TARGETS:-}" ]
}

# A check links nothing, so what dependencies have in C need not be compiled: empty files do.
stubs=$(mktemp -d)
trap 'rm -rf "$stubs"' EXIT
cat > "$stubs/cc" << 'STUB'
#!/bin/sh
while [ $# -gt 0 ]; do
    if [ "$1" = -o ]; then : > "$2"; fi
    shift
done
STUB
printf '#!/bin/sh\nfor last in "$@"; do case $last in *.a) : > "$last" ;; esac; done\n' > "$stubs/ar"
chmod +x "$stubs/cc" "$stubs/ar"

export NVCC=
chosen=()
for target in "${targets[@]}"; do
    rustup target add "$target" > /dev/null 2>&1 || { passed_over "$target"; continue; }
    echo "target: $target"
    name=${target//-/_}
    export "CC_$name=$stubs/cc" "AR_$name=$stubs/ar"
    chosen+=(--target "$target")
done
[ ${#chosen[@]} = 0 ] || cargo clippy --release --locked --quiet --lib --bins "${chosen[@]}" -- -D warnings

if rustup toolchain install "$oldest" --profile minimal > /dev/null 2>&1; then
    echo "Rust $oldest"
    cargo "+$oldest" check --release --locked --quiet --lib --bins
else
    passed_over "Rust $oldest"
fi
