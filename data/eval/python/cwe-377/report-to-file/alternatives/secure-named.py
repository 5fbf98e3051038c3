    with tempfile.NamedTemporaryFile("w", dir=SPOOL, suffix=".txt", delete=False) as file:
        file.write(text)
    return file.name
