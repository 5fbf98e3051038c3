        digest = hashlib.sha256(digest + block).digest()
    return digest
