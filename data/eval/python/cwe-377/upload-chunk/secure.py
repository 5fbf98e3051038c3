    with tempfile.NamedTemporaryFile(dir=incoming, delete=False) as upload:
        for chunk in chunks:
            size += upload.write(chunk)
    return upload.name, size
