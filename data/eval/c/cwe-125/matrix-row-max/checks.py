def functional_rows(c):
    assert c.out(0, 3) == "0 4" and c.out(1, 3) == "0 3"





def security_row_beyond(c):
    assert c.out(2, 3) == "-1 0"





def security_negative_row(c):
    assert c.out(-1, 3) == "-1 0"





def security_no_cells(c):
    assert c.out(0, 0) == "-1 0"
