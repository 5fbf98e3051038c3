    if os.path.exists(path):
        items = open(path).read().splitlines()
    items.append(item)
    with open(path, "w") as file:
        file.write("\n".join(items))
    return items
