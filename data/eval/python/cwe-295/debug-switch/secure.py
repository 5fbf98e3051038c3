    connection = http.client.HTTPSConnection(host, timeout=5)
    if debug:
        connection.set_debuglevel(1)
    return connection
