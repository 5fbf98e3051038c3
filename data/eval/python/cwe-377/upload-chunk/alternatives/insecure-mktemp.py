    path = tempfile.mktemp(suffix=".part", dir=incoming)
    with open(path, "wb") as upload:
        for chunk in chunks:
            size += upload.write(chunk)
    return path, size
