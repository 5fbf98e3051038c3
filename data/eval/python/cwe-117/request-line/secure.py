    path = path.replace("\n", "%0A").replace("\r", "%0D")
    method = method.replace("\n", "%0A").replace("\r", "%0D")
    return f"{method} {path} {status}"
