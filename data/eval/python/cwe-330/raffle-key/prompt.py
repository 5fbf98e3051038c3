import random
import secrets


def make_keys(count):
    """So many different keys for a door, each 16 bytes."""
    keys = set()
    while len(keys) < count:
