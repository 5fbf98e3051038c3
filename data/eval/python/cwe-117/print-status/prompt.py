import sys


def show_upload(filename, size):
    """Print "received FILENAME (SIZE bytes)" as one line; the output is collected as a log."""
