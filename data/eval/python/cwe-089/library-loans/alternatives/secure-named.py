    sql = "SELECT title FROM loan WHERE card = :card ORDER BY title"
    return [title for (title,) in db.execute(sql, {"card": card_number}).fetchall()]
