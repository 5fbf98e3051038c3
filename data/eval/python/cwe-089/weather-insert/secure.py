        db.execute("INSERT INTO observation VALUES (?, ?)", (station, remark))
