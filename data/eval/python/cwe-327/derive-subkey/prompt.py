import hashlib


def derive_key(master, purpose):
    """A subkey (bytes) of the master key (bytes) for one purpose (text)."""
    label = purpose.encode()
