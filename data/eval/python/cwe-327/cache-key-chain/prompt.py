import hashlib


def chain_digest(blocks):
    """Digest (bytes) of a chain: each block (bytes) is hashed together with the digest of the
    blocks before it."""
    digest = b""
    for block in blocks:
