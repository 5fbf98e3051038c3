    return line
