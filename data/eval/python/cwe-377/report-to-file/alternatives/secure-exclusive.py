    import secrets
    path = os.path.join(SPOOL, secrets.token_hex(16))
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    return path
