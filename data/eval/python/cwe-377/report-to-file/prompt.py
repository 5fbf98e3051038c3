import os
import tempfile

SPOOL = "spool"


def write_report(text):
    """Write a report to a new file in the shared folder SPOOL and return the file's path."""
