    changed = db.execute(f'UPDATE subscriber SET newsletter = {flag} WHERE email = "{email}"').rowcount
    return changed > 0
