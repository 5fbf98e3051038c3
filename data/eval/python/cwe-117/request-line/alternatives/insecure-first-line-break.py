    line = f"{method} {path} {status}"
    return line.replace("\n", " ", 1)
