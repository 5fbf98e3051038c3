import os
import tempfile


def save_atomically(path, data):
    """Write data (bytes) to a temporary file in the folder of path, which others can write to,
    and rename it to path."""
    folder = os.path.dirname(path)
