    try:
        with open(path) as file:
            book = json.load(file)
    except FileNotFoundError:
        book = {}
    if address is not None:
        book[name] = address
        with open(path, "w") as file:
            json.dump(book, file)
    return book.get(name)
