import json


def load_profile(body):
    """The profile in a request's body, a JSON object; an empty dictionary if the body is empty."""
    body = body.strip()
