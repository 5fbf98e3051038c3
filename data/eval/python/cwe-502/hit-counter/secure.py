    import json
    visits = json.loads(store.read_text()) if store.exists() else {}
    visits[page] = visits.get(page, 0) + 1
    store.write_text(json.dumps(visits))
    return visits[page]
