    return f"{randbelow(1000000):06d}"
