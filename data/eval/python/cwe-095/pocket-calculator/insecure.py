    return eval(expression)
