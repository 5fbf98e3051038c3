    with shelve.open(path) as book:
        if address is not None:
            book[name] = address
        return book.get(name)
