    return f"{method} {path} {status}"
