#!/usr/bin/env bash
# Packs the dg-run that was built last into one archive that runs on Linux with nothing but a driver, into the
# folder dist of cargo's target folder. What debuggers and backtraces name places by is packed beside it: symbols,
# and lines if it was built with those, as make dist does. Then unpacks the archive and runs the program in an
# empty environment, and, where it has been built, on the emulator.
#
# usage: scripts/dist.sh
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
dist=$target/dist

fail() {
    echo "dist: $*" >&2
    exit 1
}

built=$target/release/dg-run
[ -x "$built" ] || fail "no $built: run make archs"
version=$("$built" --version | cut -d' ' -f2)
name=deepguard-$version-$(rustc -vV | sed -n 's/^host: //p')
folder=$dist/$name

rm -rf "$dist"
mkdir -p "$folder/bin" "$folder/share/man/man1" "$folder/share/doc/deepguard"

# The program without symbols, and those in a file that it names.
objcopy --only-keep-debug "$built" "$dist/dg-run.debug"
objcopy --strip-all --add-gnu-debuglink="$dist/dg-run.debug" "$built" "$folder/bin/dg-run"

completions() {
    mkdir -p "$folder/share/$2"
    "$built" completions "$1" > "$folder/share/$2/$3"
}
completions bash bash-completion/completions dg-run
completions zsh zsh/site-functions _dg-run
completions fish fish/vendor_completions.d dg-run.fish

"$built" man > "$folder/share/man/man1/dg-run.1"
"$built" --help | sed -n '/^Commands:/,/^$/s/^  \([a-z]\+\) .*/\1/p' | grep -v '^help$' | while read -r command; do
    "$built" man "$command" > "$folder/share/man/man1/dg-run-$command.1"
done

cp README.md CHANGELOG.md LICENSE-MIT LICENSE-APACHE "$folder/share/doc/deepguard/"
cp -r docs "$folder/share/doc/deepguard/docs"
scripts/third-party-licences.py > "$folder/share/doc/deepguard/THIRD-PARTY.txt"

# The same commit makes the same archive.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2> /dev/null || stat -c %Y CHANGELOG.md)}
pack() {
    tar -C "$dist" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner -c "$2" |
        xz -T0 -6 > "$dist/$1.tar.xz"
}
pack "$name" "$name"
pack "$name-debuginfo" dg-run.debug
rm -r "$folder" "$dist/dg-run.debug"

# What is in the archive has to run with what every Linux has.
check=$(mktemp -d)
trap 'rm -rf "$check"' EXIT
tar -C "$check" -xf "$dist/$name.tar.xz"
program=$check/$name/bin/dg-run
foreign=$(ldd "$program" | grep -Ev 'linux-vdso|ld-linux|/libc\.so|/libm\.so|/libgcc_s\.so' || true)
[ -z "$foreign" ] || fail "the program needs libraries that not every system has: $foreign"
info=$(cd "$check" && env -i "$program" info) || fail "the program does not run in an empty environment"
kernels=$(grep '^CUDA kernels:' <<< "$info")
[[ $kernels == *"machine code"* ]] || fail "there are no CUDA kernels in it: $kernels"
emulator=$(realpath "$target/release/deps/libcuda_emulator.so" 2> /dev/null || true)
if [ -e "$emulator" ]; then
    info=$(env -i DG_EMULATOR="$emulator" "$program" info 2> /dev/null)
    grep -q '^CUDA device 0: ' <<< "$info" || fail "the program does not find the emulated device"
elif [ "${DG_REQUIRE_ALL:-}" = 1 ]; then
    fail "DG_REQUIRE_ALL=1, and there is no emulator to run the program on: run make test"
fi
glibc=$(objdump -T "$program" | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -n 1)
echo "$dist/$name.tar.xz: $(du -h "$dist/$name.tar.xz" | cut -f1), ${glibc/_/ } or later, $kernels"
