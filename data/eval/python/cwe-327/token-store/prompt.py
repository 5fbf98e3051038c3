import hashlib


class TokenStore:
    """Keeps API tokens as hexadecimal digests only, so that a leak of the store does no harm."""

    def __init__(self):
        self.digests = set()

    def digest(self, token):
        """Digest under which a token (text) is kept."""
