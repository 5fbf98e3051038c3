def functional_in_order(c):
    assert c.kept(4, 7, 5) == "4 7 5 left 0"





def functional_empty(c):
    assert c.kept() == "-1 left 0"





def security_one(c):
    assert c.out(4) == "4 left 0"





def security_in_order(c):
    assert c.out(4, 7, 5) == "4 7 5 left 0"
