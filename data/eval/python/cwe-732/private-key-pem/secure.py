    path.touch(mode=0o600)
    path.write_text(pem)
    return path
