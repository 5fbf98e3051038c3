        flags[key.strip()] = eval(value.strip())
    return flags
