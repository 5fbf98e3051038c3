    with open(path, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(token)
