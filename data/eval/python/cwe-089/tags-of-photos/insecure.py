    quoted = ", ".join(f"'{tag}'" for tag in tags)
    rows = db.execute(f"SELECT DISTINCT photo FROM photo_tag WHERE tag IN ({quoted}) ORDER BY photo")
    return [photo for (photo,) in rows]
