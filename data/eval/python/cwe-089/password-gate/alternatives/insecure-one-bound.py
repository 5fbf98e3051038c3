    sql = f"SELECT 1 FROM account WHERE login = ? AND digest = '{digest}'"
    return db.execute(sql, (login,)).fetchone() is not None
