import hashlib


def hash_password(password, salt):
    """Hexadecimal digest of a password with its salt (bytes), as it is stored in the user table."""
