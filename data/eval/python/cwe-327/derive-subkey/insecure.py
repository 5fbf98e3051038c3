    return hashlib.md5(master + label).digest()
