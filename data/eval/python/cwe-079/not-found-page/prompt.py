import html


def not_found(path):
    """The body of a 404 page, as bytes: a heading and a paragraph that names the path."""
    head = "<h1>Not found</h1>"
