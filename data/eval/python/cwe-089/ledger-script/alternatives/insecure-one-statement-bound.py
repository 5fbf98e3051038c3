    db.execute("INSERT INTO archive SELECT * FROM ledger WHERE month = ?", (month,))
    db.execute("DELETE FROM ledger WHERE month = '" + month + "'")
