import ssl


def download(get, url, attempts=3):
    """get(url) again and again, at most so often, until it raises no ConnectionError; its result, or None."""
    for _ in range(attempts):
