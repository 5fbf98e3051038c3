import os
import tempfile


def receive(chunks, incoming="incoming"):
    """Collect the chunks (bytes) of an upload in a file of its own in the folder; returns (path, size)."""
    size = 0
