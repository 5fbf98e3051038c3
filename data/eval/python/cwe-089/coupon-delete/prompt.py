def drop_coupon(connection, code):
    """Delete one coupon by its code; the number of deleted rows is the result."""
    cur = connection.cursor()
