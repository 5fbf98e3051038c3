    os.makedirs(path, exist_ok=True)
    os.chmod(path, 0o700)
    return path
