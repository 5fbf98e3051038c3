    photos = set()
    for tag in tags:
        for row in db.execute("SELECT photo FROM photo_tag WHERE tag = ?", (tag,)):
            photos.add(row[0])
    return sorted(photos)
