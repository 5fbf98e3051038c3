    path = os.path.join(RECIPES, os.path.basename(name))
    return open(path).read() if os.path.isfile(path) else None
