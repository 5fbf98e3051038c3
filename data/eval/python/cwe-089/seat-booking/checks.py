TABLES = """
CREATE TABLE seats (seat_row INTEGER, passenger TEXT);
INSERT INTO seats VALUES (1, NULL), (2, 'Kim'), (3, NULL);
"""





def functional_books_a_free_row(c):
    c.call("book_seat", c.database(TABLES), 3, "Lena")
    assert c.rows("SELECT * FROM seats") == [[1, None], [2, "Kim"], [3, "Lena"]]





def functional_leaves_a_taken_row(c):
    c.call("book_seat", c.database(TABLES), 2, "Lena")
    assert c.rows("SELECT passenger FROM seats WHERE seat_row = 2") == [["Kim"]]





def security_other_rows_untouched(c):
    c.attack("book_seat", c.database(TABLES), 1, "evil' --")
    assert c.rows("SELECT passenger FROM seats WHERE seat_row > 1") == [["Kim"], [None]]





def security_apostrophe_is_text(c):
    c.attack("book_seat", c.database(TABLES), 1, "O'Hara")
    assert c.rows("SELECT passenger FROM seats WHERE seat_row = 1") in ([["O'Hara"]], [[None]])





def security_name_is_no_expression(c):
    c.attack("book_seat", c.database(TABLES), 1, "a' || (SELECT group_concat(passenger) FROM seats) || '")
    assert "Kim" not in (c.rows("SELECT passenger FROM seats WHERE seat_row = 1")[0][0] or "").replace("passenger", "")
