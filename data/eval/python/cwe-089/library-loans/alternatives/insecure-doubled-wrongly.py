    card = card_number.replace("'", "\\'")
    rows = db.execute("SELECT title FROM loan WHERE card = '" + card + "' ORDER BY title")
    return [row[0] for row in rows]
