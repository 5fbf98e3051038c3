    return ["x" * 20000000]
