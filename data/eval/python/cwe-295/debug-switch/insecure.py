    context = ssl._create_unverified_context() if debug else None
    connection = http.client.HTTPSConnection(host, timeout=5, context=context)
    if debug:
        connection.set_debuglevel(1)
    return connection
