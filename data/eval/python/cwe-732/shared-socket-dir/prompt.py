import os
import stat


def tighten(path):
    """Take all rights away from group and others for a file, and leave the owner's as they are."""
    mode = os.stat(path).st_mode
