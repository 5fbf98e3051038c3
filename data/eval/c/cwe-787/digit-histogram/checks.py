def functional_counts(c):
    assert c.out(1, 6, 6, 3) == "1 0 1 0 0 2 skipped 0"





def functional_none(c):
    assert c.out() == "0 0 0 0 0 0 skipped 0"





def security_above(c):
    assert c.out(7, 2) == "0 1 0 0 0 0 skipped 1"





def security_zero_and_negative(c):
    assert c.out(0, -1, 2) == "0 1 0 0 0 0 skipped 2"
