def functional_powers(c):
    assert c.out(3, 4) == "1 81" and c.out(9, 0) == "1 1" and c.out(0, 2) == "1 0"





def functional_largest(c):
    assert c.out(2, 31) == "1 2147483648"





def security_wraps_to_zero(c):
    assert c.out(2, 32) == "0 0"





def security_wraps_to_more(c):
    assert c.out(10, 10) == "0 0" and c.out(1000, 4) == "0 0"
