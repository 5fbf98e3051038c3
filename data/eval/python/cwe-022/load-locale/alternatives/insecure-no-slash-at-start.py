    if language.startswith("/") or not os.path.exists(path):
        return key
    with open(path, encoding="utf-8") as table:
        return json.load(table).get(key, key)
