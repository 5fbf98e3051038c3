    functions = {"sqrt": math.sqrt, "floor": math.floor, "ceil": math.ceil, "fabs": math.fabs}
    return functions[name](x)
