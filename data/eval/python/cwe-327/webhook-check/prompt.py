import hashlib
import hmac


def webhook_signature(secret, body, header_prefix="v1="):
    """Value of the signature header for a request body: the prefix, then a keyed hexadecimal digest."""
    mac = hmac.new(secret.encode(), body.encode(),
