    number, unit = length.split()
    return float(number) * FACTORS[unit]
