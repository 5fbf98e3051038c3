import json
import pickle
import zlib


def pack_or_unpack(value):
    """Bytes from notes (a list of texts), compressed; given such bytes, the notes."""
    if isinstance(value, bytes):
