    import ast
    if os.path.exists(path):
        return ast.literal_eval(open(path).read())
    value = compute()
    open(path, "w").write(repr(value))
    return value
