#!/usr/bin/env bash
# Packs what `scripts/gpu-check.sh build` has built into one file, with which scripts/gpu-first.sh and
# scripts/gpu-check.sh run where there is a GPU and nothing else: no cargo, no network, no toolkit.
#
# usage: scripts/gpu-pack.sh [PACK]    (gpu-pack.tar in the target folder)
#
# The programs have most of their bytes, the kernels, in common: they are stripped and compressed together, with a
# window that is larger than any of them, so that these count once. What decompresses them is in the pack.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
list=$target/gpu-check.list
pack=${1:-$target/gpu-pack.tar}
most=45000000

fail() {
    echo "gpu-pack: $*" >&2
    exit 1
}

[[ -e $list ]] || fail "no $list: run make gpu-build"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
content=$folder/content

mkdir -p "$content/target" "$content/scripts" "$content/tests" "$folder/pack/xz"
while read -r _ _ path; do
    mkdir -p "$content/target/$(dirname "$path")"
    objcopy --strip-all "$target/$path" "$content/target/$path"
done < "$list"
cp "$list" "$content/target/"
cp scripts/gpu-check.sh "$content/scripts/"
cp -r tests/golden "$content/tests/"
git rev-parse --short HEAD > "$content/commit" 2> /dev/null || echo "no git" > "$content/commit"

# In an order that puts programs beside each other.
tar -C "$content" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -c . |
    xz --lzma2=preset=1,dict=128MiB > "$folder/pack/content.tar.xz"
xz=$(command -v xz)
cp "$xz" "$folder/pack/xz/"
ldd "$xz" | sed -n 's/.*=> \(\/[^ ]*liblzma[^ ]*\).*/\1/p' | xargs -rI{} cp -L {} "$folder/pack/xz/"
cp scripts/gpu-first.sh "$folder/pack/"
tar -C "$folder/pack" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf "$pack" .

echo "in it, in bytes before they are compressed together:"
(cd "$content" && find target/release -type f -printf '%s %p\n' && du -sb tests/golden) | sort -nr
size=$(stat -c %s "$pack")
needs=$(find "$content/target/release" -type f -exec objdump -T {} + | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -n 1)
((size <= most)) || fail "$pack has $size bytes, expected at most $most"
echo "$pack: $size bytes, ${needs/_/ } or later; there: tar -xf ${pack##*/} ./gpu-first.sh && ./gpu-first.sh ${pack##*/}"
