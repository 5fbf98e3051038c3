import os
import tempfile


def edit_copy(folder, text, editor):
    """Put the text into a temporary file in the folder, call editor(path), and return what the
    file holds then.

    The file is gone afterwards.
    """
