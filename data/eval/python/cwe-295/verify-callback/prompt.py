def accept_peer(peer, expected_name, now):
    """Decide on a peer's certificate, a dictionary with "name", "trusted" (by an authority) and
    "expires" (seconds).

    Accepted is a trusted one of the expected name that has not expired at the time now.
    """
