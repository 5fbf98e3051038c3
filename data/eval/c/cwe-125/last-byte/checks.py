def functional_last(c):
    assert c.out("abc") == "99"





def functional_single(c):
    assert c.out("z") == "122"





def security_empty(c):
    assert c.out("") == "-1"





def security_stays_inside(c):
    assert c.out("abcdefgh") == "104"
