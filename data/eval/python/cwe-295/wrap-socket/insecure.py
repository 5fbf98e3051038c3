    context.check_hostname = False
    return context.wrap_socket(sock)
