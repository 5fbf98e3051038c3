    column = column.replace("'", "").replace(";", "")
    return [row[0] for row in db.execute("SELECT name FROM chapter ORDER BY " + column)]
