    line = f"{method} {path} {status}"
    return " ".join(line.splitlines())
