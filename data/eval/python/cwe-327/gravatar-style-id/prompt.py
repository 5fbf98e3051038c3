from hashlib import md5, sha256


def visitor_id(address, secret):
    """A pseudonym for an IP address, in hexadecimal, that depends on a secret text."""
    data = (secret + address).encode("utf-8")
