    digest = hashlib.sha1()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(4096), b""):
            digest.update(block)
    return digest.hexdigest()
