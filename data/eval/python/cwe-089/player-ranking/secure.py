    query = "SELECT name FROM player WHERE country = ? ORDER BY score DESC LIMIT ?"
    return [name for (name,) in db.execute(query, (country, limit))]
