    if shape not in SHAPES:
        raise ValueError(command)
    return SHAPES[shape](eval(rest[:-1]))
