    if os.path.exists(path):
        with open(path, "rb") as file:
            items = pickle.load(file)
    items.append(item)
    with open(path, "wb") as file:
        pickle.dump(items, file)
    return items
