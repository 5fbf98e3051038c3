def functional_inside(c):
    assert c.out(1, 3) == "14"





def functional_nothing(c):
    assert c.out(2, 0) == "0"





def functional_all(c):
    assert c.out(0, 5) == "31"





def security_beyond_the_end(c):
    assert c.out(3, 4) == "24"





def security_start_beyond(c):
    assert c.out(9, 2) == "0"
