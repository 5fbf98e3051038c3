import base64
import hashlib


def content_address(text):
    """URL-safe base64 of the digest of a text, without the padding "="; the address of the text
    in a public store."""
    digest = hashlib.new(
