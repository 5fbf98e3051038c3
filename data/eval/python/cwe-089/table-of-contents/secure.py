    if column not in ("name", "pages", "number"):
        raise ValueError(column)
    return [row[0] for row in db.execute(f"SELECT name FROM chapter ORDER BY {column}")]
