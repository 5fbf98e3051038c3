    with tempfile.TemporaryDirectory(dir=base) as folder:
        return build(folder)
