import hashlib


def is_pinned(certificate, pins):
    """Whether the SHA-256 digest of a certificate (DER bytes), in hexadecimal, is one of the pins, whatever
    their case."""
    digest = hashlib.sha256(certificate).hexdigest()
