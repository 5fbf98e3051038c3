import hashlib


def fingerprint(path):
    """Hexadecimal fingerprint of a file's content, to detect that it was tampered with."""
