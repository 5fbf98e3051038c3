    visits = eval(store.read_text()) if store.exists() else {}
    visits[page] = visits.get(page, 0) + 1
    store.write_text(repr(visits))
    return visits[page]
