    if not any(sign in expression for sign in OPERATORS):
        raise ValueError(expression)
    return eval(expression)
