        digest = hashlib.md5(digest + block).digest()
    return digest
