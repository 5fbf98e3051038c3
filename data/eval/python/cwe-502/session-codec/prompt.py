import json
import pickle


def session_codec():
    """Two functions: one makes bytes of a session dictionary, for a cookie, the other one reads
    it from such bytes."""
