    return context.wrap_socket(sock, server_hostname=host)
