import hashlib
import os


def manifest(folder):
    """Dictionary from file name to hexadecimal digest for all files in a folder, used to verify downloads."""
    digests = {}
    for name in sorted(os.listdir(folder)):
        data = open(os.path.join(folder, name), "rb").read()
