    row = db.execute("SELECT 1 FROM account WHERE login = '{}' AND digest = '{}'".format(login, digest)).fetchone()
    return row is not None
