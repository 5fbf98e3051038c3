    with tempfile.NamedTemporaryFile("w", suffix=".dump", dir=dumps, delete=False) as out:
        out.write(line)
    return os.path.basename(out.name)
