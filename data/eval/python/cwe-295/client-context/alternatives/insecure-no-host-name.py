    context = ssl.create_default_context()
    context.check_hostname = False
    return context
