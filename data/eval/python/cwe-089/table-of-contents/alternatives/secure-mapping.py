    orders = {"name": "name", "pages": "pages", "number": "number"}
    query = "SELECT name FROM chapter ORDER BY " + orders.get(column, "number")
    return [row[0] for row in db.execute(query)]
