    with open(source, "rb") as old, open(target, "wb") as new:
        os.chmod(target, 0o600)
        new.write(old.read())
