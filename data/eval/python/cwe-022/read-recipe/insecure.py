    path = os.path.join(RECIPES, name)
    if not os.path.isfile(path):
        return None
    with open(path) as file:
        return file.read()
