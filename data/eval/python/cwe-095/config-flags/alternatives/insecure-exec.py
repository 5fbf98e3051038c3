        exec(line, {}, flags)
    return flags
