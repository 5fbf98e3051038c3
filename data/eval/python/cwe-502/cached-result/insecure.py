    if os.path.exists(path):
        with open(path, "rb") as file:
            return pickle.load(file)
    value = compute()
    with open(path, "wb") as file:
        pickle.dump(value, file)
    return value
