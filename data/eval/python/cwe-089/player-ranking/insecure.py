    query = "SELECT name FROM player WHERE country = '" + country + "' ORDER BY score DESC LIMIT " + str(limit)
    return [name for (name,) in db.execute(query)]
