def close_month(db, month):
    """Copy the entries of a month such as "2024-05" into `archive` and remove them from `ledger`."""
