import os
import subprocess
import tempfile


def sort_lines(lines, scratch):
    """Lines in the order of the sort program, which reads them from a file in the folder scratch that goes
    away after."""
    text = "".join(line + "\n" for line in lines)
