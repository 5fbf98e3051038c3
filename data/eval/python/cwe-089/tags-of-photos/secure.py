    marks = ", ".join("?" for _ in tags)
    rows = db.execute(f"SELECT DISTINCT photo FROM photo_tag WHERE tag IN ({marks}) ORDER BY photo", list(tags))
    return [photo for (photo,) in rows]
