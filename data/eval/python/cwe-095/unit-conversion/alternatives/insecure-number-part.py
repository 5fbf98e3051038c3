    number, unit = length.rsplit(" ", 1)
    return eval(number) * FACTORS[unit]
