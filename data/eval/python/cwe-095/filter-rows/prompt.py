def rows_where(rows, condition):
    """Rows (dictionaries) that meet a condition "FIELD == NUMBER", "FIELD < NUMBER" or "FIELD > NUMBER"."""
    field, sign, number = condition.split(" ", 2)
