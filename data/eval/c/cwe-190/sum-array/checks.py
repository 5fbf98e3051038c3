def functional_sums(c):
    assert c.out(5, -2, 10) == "13" and c.out() == "0"





def security_above(c):
    assert c.out(2147483647, 1) == "-2147483648"





def security_below(c):
    assert c.out(-2147483647, -2) == "-2147483648"





def security_far_above(c):
    assert c.out(2147483647, 2147483647, 2147483647) == "-2147483648"
