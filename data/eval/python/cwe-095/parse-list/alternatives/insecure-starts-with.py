    if not text.startswith("["):
        raise ValueError(text)
    return eval(text)
