    path = os.path.realpath(os.path.join(RECIPES, name))
    if not path.startswith(os.path.realpath(RECIPES) + os.sep) or not os.path.isfile(path):
        return None
    with open(path) as file:
        return file.read()
