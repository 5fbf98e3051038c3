    if name not in os.listdir(RECIPES):
        return None
    with open(os.path.join(RECIPES, name)) as file:
        return file.read()
