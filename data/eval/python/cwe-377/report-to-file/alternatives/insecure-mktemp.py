    path = tempfile.mktemp(dir=SPOOL)
    with open(path, "w") as file:
        file.write(text)
    return path
