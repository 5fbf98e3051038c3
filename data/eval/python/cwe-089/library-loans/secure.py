    rows = db.execute("SELECT title FROM loan WHERE card = ? ORDER BY title", (card_number,))
    return [row[0] for row in rows]
