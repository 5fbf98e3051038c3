import hashlib


def is_genuine(data, digests):
    """Whether a download (bytes) is genuine: digests is a dictionary from "md5" and "sha256" to
    the expected ones."""
