    items = pickle.loads(row[0]) if row else []
    if add is not None:
        items.append(add)
        db.execute("REPLACE INTO baskets VALUES (?, ?)", (user, pickle.dumps(items)))
    return items
