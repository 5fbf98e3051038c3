    old = os.umask(0o077)
    try:
        with open(path, "w") as file:
            file.write(token)
    finally:
        os.umask(old)
