import os
import shutil
import tempfile


def build_in_folder(base, build):
    """Make a scratch folder in base, return build(folder), and remove the folder in any case."""
