def functional_distance(c):
    assert c.out(3, 10) == "7" and c.out(10, 3) == "7" and c.out(-4, 4) == "8"





def functional_same(c):
    assert c.out(-5, -5) == "0"





def security_ends_of_the_line(c):
    assert c.out(-2147483648, 2147483647) == "4294967295"





def security_beyond_int(c):
    assert c.out(2000000000, -2000000000) == "4000000000"
