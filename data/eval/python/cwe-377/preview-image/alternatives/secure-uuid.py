    path = os.path.join(cache, f"{stem}-{uuid.uuid4()}.png")
    os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
    return path
