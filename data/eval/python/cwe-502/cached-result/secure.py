    if os.path.exists(path):
        with open(path) as file:
            return json.load(file)
    value = compute()
    with open(path, "w") as file:
        json.dump(value, file)
    return value
