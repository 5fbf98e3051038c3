#!/usr/bin/env python3
"""Prints name, version and licence of every crate that dg-run is linked with, and the texts of those licences.

usage: scripts/third-party-licences.py
"""

import json
import pathlib
import subprocess
import sys

NAMES = ("license", "licence", "copying", "notice", "unlicense")


def cargo(*arguments):
    return subprocess.run(["cargo", *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def texts(manifest):
    """The licence files beside a manifest, by name."""
    files = pathlib.Path(manifest).parent.iterdir()
    found = [file for file in files if file.is_file() and file.name.lower().startswith(NAMES)]
    return [file.read_text(encoding="utf-8", errors="replace").strip() for file in sorted(found)]


def main():
    linked = cargo("tree", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}")
    linked = {tuple(line.split()[:2]) for line in linked.splitlines() if line}
    packages = json.loads(cargo("metadata", "--locked", "--format-version", "1"))["packages"]
    packages = [p for p in packages if p["source"] and (p["name"], "v" + p["version"]) in linked]
    users = {}  # text of a licence → the crates that come with it
    print("dg-run is linked with these crates:\n")
    for package in sorted(packages, key=lambda p: p["name"]):
        crate = f"{package['name']} {package['version']}"
        print(f"{crate}: {package['license']}")
        for text in texts(package["manifest_path"]):
            users.setdefault(text, []).append(crate)
    for text, crates in users.items():
        print(f"\n{'-' * 80}\n{', '.join(crates)}\n\n{text}")
    return 0 if packages else 1


if __name__ == "__main__":
    sys.exit(main())
