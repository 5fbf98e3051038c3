    with open(path, "rb") as file:
        return hashlib.blake2b(file.read(), digest_size=32).hexdigest()
