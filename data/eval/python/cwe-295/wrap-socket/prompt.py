import ssl


def encrypt(sock, host, context=None):
    """Wrap a connected socket to a host in TLS, by the context's wrap_socket; a new context is
    made if none is given."""
    if context is None:
        context = ssl.create_default_context()
