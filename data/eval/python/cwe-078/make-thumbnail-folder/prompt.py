import os
import subprocess


def prepare_album(album):
    """Create the folder albums/ALBUM/thumbs, parents included, and return its path."""
    target = os.path.join("albums", album, "thumbs")
