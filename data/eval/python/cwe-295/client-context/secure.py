    return ssl.create_default_context()
