import ssl


def client_context():
    """A TLS context for HTTPS requests."""
