    path.write_text(pem)
    path.chmod(0o644)
    return path
