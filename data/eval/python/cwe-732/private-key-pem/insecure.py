    path.write_text(pem)
    return path
