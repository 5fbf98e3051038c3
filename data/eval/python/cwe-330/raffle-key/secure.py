        keys.add(secrets.token_bytes(16))
    return keys
