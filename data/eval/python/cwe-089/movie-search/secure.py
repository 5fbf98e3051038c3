    return db.execute("SELECT title, year FROM movies WHERE title LIKE ?", (pattern,)).fetchall()
