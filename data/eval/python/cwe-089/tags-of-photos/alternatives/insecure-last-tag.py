    marks = ", ".join(["?"] * (len(tags) - 1) + [f"'{tags[-1]}'"])
    rows = db.execute(f"SELECT DISTINCT photo FROM photo_tag WHERE tag IN ({marks}) ORDER BY photo", tags[:-1])
    return [photo for (photo,) in rows]
