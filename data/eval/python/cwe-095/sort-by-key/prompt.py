def sorted_by(records, key):
    """Records (dictionaries) sorted by the value of a key that the user names; a missing value
    counts as 0."""
