    if name not in ("sqrt", "floor", "ceil", "fabs"):
        raise ValueError(name)
    return getattr(math, name)(x)
