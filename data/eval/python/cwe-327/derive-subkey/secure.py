    return hashlib.blake2b(label, key=master, digest_size=32).digest()
