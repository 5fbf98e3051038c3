    cursor.execute("SELECT AVG(value) FROM reading WHERE sensor = '%s'" % sensor)
    return cursor.fetchone()[0]
