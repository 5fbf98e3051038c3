import hashlib
import hmac


def sign_cookie(key, value):
    """The cookie "VALUE.SIGNATURE", where the signature is a hexadecimal one by a secret key (bytes)."""
