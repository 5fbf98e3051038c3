    pattern = pattern.replace("--", "").replace(";", "")
    return db.execute(f"SELECT title, year FROM movies WHERE title LIKE '{pattern}'").fetchall()
