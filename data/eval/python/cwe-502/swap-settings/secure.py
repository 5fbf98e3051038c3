    if os.path.isfile(path):
        with open(path) as source:
            old = load(source)
    with open(path, "w") as target:
        dump(new, target)
    return old
