from pathlib import Path


def static_response(root, url_path):
    """(status, body) for a URL path such as "/css/site.css": 200 and the file's bytes, or 404 and b""."""
    file = Path(root) / url_path.lstrip("/")
