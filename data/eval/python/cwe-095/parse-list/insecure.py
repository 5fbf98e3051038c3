    return eval(text)
