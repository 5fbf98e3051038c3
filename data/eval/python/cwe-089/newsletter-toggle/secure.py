    changed = db.execute("UPDATE subscriber SET newsletter = ? WHERE email = ?", (flag, email)).rowcount
    return changed > 0
