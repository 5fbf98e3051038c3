# Python packages with pinned checksums, for the scripts that put them into a folder. To be sourced.

# Fills DEST with what `fill SCRATCH`, a function of the caller's, makes of the list. DEST appears complete or
# not at all; one that is of this very list is left as it is, and one that is not from here is an error.
#
# usage: pinned_packages LIST DEST
pinned_packages() {
    local list=$1 dest=$2 name
    name=$(basename "$list")
    # The list is copied in last, so that a folder with it is a whole installation of that list.
    if cmp --silent "$list" "$dest/$name"; then
        return
    fi
    if [ -e "$dest" ] && [ ! -e "$dest/$name" ]; then
        echo "$0: $dest exists, but is not from here; move it away and try again" >&2
        return 1
    fi
    mkdir -p "$(dirname "$dest")"
    scratch=$(mktemp -d "$dest.XXXXXX")
    trap 'rm -rf "$scratch"' EXIT
    fill "$scratch" || return
    cp "$list" "$scratch/$name"
    chmod 755 "$scratch"
    rm -rf "$dest"
    mv "$scratch" "$dest"
}

# pip, for a list with checksums, and nothing else.
#
# usage: pip_install LIST OPTION...
pip_install() {
    local list=$1
    shift
    # Or pip warns; nothing of the system is touched.
    PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --disable-pip-version-check --no-deps \
        --require-hashes --only-binary :all: --no-compile --requirement "$list" "$@" < /dev/null >&2
}
