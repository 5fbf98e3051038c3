    match = re.fullmatch(r"([\d.]+) *([a-z]+)", length)
    return float(match.group(1)) * FACTORS[match.group(2)]
