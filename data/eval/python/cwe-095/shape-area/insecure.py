    return eval(command, {}, SHAPES)
