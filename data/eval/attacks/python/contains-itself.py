    rows = []
    rows.append(rows)
    return rows
