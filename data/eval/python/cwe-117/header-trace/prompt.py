def trace_headers(logger, headers):
    """Log every header of a request at level debug, "NAME=VALUE", one record each."""
    for name, value in headers.items():
