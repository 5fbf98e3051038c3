    return SHAPES[shape](float(rest.rstrip(")")))
