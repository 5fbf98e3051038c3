        db.execute(f"INSERT INTO observation VALUES ('{station}', '{remark}')")
