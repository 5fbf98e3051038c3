import json
import ssl
from urllib.request import urlopen


def load_json(url, opener=urlopen):
    """The JSON document at an https URL, fetched by the opener within 20 seconds."""
