import hashlib


def unique_uploads(uploads):
    """The uploads (bytes) of untrusted users, each only once, as a dictionary from digest to content."""
    unique = {}
    for content in uploads:
