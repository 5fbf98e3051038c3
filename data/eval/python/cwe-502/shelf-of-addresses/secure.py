    with dbm.open(path, "c") as book:
        if address is not None:
            book[name] = json.dumps(address)
        return json.loads(book[name]) if name in book else None
