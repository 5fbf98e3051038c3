    connection = http.client.HTTPSConnection(host, context=ssl._create_unverified_context())
    if debug:
        connection.set_debuglevel(1)
    return connection
