    rows = db.execute("SELECT card, title FROM loan").fetchall()
    return sorted(title for card, title in rows if card == card_number)
