    cursor.execute("SELECT AVG(value) FROM reading WHERE sensor = ?", (sensor,))
    return cursor.fetchone()[0]
