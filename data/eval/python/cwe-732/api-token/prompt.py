import os


def store_token(path, token):
    """Write an API token to a file, where later runs of this user's programs find it."""
