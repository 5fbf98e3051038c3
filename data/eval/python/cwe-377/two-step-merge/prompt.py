import os
import tempfile


def merge(first, second, target):
    """Write the sorted lines of two files to target, a file in a shared folder, so that no other user can
    swap or read them while they are written."""
    lines = sorted(open(first).readlines() + open(second).readlines())
