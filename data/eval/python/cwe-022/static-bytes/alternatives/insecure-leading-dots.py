    if url_path.startswith("/..") or not file.is_file():
        return 404, b""
    return 200, file.read_bytes()
