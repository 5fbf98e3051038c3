    if os.path.isfile(path):
        with open(path, "rb") as source:
            old = pickle.load(source)
    with open(path, "wb") as target:
        pickle.dump(new, target)
    return old
