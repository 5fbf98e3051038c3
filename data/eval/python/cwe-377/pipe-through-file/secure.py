    with tempfile.NamedTemporaryFile("w", dir=scratch) as file:
        file.write(text)
        file.flush()
        return subprocess.check_output(["sort", file.name], text=True).splitlines()
