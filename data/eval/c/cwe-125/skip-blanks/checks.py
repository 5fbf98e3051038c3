def functional_skips(c):
    assert c.out("a   b", 1) == "4"





def functional_nothing_to_skip(c):
    assert c.out("a   b", 0) == "0"





def security_blank_end(c):
    assert c.out("a   ", 1) == "4"





def security_at_the_end(c):
    assert c.out("abc", 3) == "3"
