    return secrets.token_hex(16)
