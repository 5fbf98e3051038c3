    left, sign, right = expression.split()
    return OPERATORS[sign](float(left), float(right))
