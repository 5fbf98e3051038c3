    root = Path(root).resolve()
    if not file.resolve().is_relative_to(root) or not file.is_file():
        return 404, b""
    return 200, file.read_bytes()
