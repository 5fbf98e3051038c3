import ssl


class Client:
    """A client of servers whose certificates come from the company's own authority."""

    def __init__(self, ca_file):
        self.ca_file = ca_file

    def context(self):
        """The TLS context for such a server; load_verify_locations reads the authority's certificate."""
