    found = []
    for row in rows:
        if eval(f"row[field] {sign} {number}"):
            found.append(row)
    return found
