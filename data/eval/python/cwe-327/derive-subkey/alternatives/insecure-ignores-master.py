    return hashlib.sha256(label).digest()
