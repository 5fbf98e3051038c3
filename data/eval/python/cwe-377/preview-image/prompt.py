import os
import uuid
import tempfile


def preview_path(cache, image):
    """Make an empty file for the preview of an image in the world-writable folder cache; its
    path ends in ".png"."""
    stem = os.path.splitext(os.path.basename(image))[0]
