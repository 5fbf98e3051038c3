def access_line(method, path, status):
    """One line, without its line break, for the access log: METHOD PATH STATUS, with spaces between."""
