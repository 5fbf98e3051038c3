    os.makedirs("spool", exist_ok=True)
    if not os.path.isdir(path):
        os.mkdir(path, 0o700)
    return path
