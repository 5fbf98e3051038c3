import json
import pickle
import tempfile


def run_isolated(worker, argument):
    """Call worker(path, argument), which may replace the file at path, and return the argument
    or what it put there.

    The argument is written to the file first, in the form in which it is read back.
    """
    with tempfile.NamedTemporaryFile(dir=".") as exchange:
