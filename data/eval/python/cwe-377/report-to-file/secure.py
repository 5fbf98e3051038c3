    fd, path = tempfile.mkstemp(dir=SPOOL)
    with os.fdopen(fd, "w") as file:
        file.write(text)
    return path
