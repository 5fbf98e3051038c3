import subprocess


def count_lines(filename):
    """Number of lines of a file, as told by wc."""
