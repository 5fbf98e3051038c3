import os


def take_lock(path):
    """Make the lock file at path with the process number in it; False if somebody else holds the lock."""
