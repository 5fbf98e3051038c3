    visits = pickle.loads(store.read_bytes()) if store.exists() else {}
    visits[page] = visits.get(page, 0) + 1
    store.write_bytes(pickle.dumps(visits))
    return visits[page]
