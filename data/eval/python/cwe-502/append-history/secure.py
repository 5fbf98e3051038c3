    if os.path.exists(path):
        with open(path) as file:
            items = json.load(file)
    items.append(item)
    with open(path, "w") as file:
        json.dump(items, file)
    return items
