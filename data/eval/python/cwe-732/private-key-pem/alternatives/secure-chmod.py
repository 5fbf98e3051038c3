    path.write_text(pem)
    path.chmod(0o400)
    return path
