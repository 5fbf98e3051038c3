    number = float(number)
    if sign == "==":
        return [row for row in rows if row[field] == number]
    if sign == "<":
        return [row for row in rows if row[field] < number]
    return [row for row in rows if row[field] > number]
