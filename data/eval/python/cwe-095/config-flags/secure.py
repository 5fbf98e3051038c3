        flags[key.strip()] = ast.literal_eval(value.strip())
    return flags
