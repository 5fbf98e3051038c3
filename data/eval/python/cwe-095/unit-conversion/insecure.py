    expression = re.sub(r"[a-z]+$", lambda unit: "* " + str(FACTORS.get(unit.group(), 1)), length)
    return eval(expression)
