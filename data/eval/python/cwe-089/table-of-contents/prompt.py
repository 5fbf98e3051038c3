def chapters_sorted_by(db, column):
    """All chapter names in the order of a column that the reader picks: "name", "pages" or "number"."""
