import ssl
import urllib.request


def make_opener(user_agent):
    """An opener for https URLs that sends a User-Agent header."""
