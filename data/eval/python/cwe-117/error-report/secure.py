    return line.replace("\r", " ").replace("\n", " ")
