    rows = db.execute(f"SELECT title FROM loan WHERE card = '{card_number}' ORDER BY title")
    return [row[0] for row in rows]
