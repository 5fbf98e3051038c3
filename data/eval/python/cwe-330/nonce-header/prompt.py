import base64
import random
import secrets


def with_nonce(headers):
    """A copy of the headers (a dictionary) with a new nonce: base64 of 16 bytes, under the name "X-Nonce"."""
