def book_seat(cursor, row, passenger):
    """Write the passenger's name beside a seat row that is still free."""
