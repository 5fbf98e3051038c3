def tls_options(host, port=443, ca_file=None):
    """Options for connect(**options), a dictionary: host, port, verify (whether the certificate
    is checked), and ca_file
    if one is given."""
    options = {"host": host, "port": port}
