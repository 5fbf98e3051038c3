def functional_some(c):
    assert c.out(3) == "3 3 12"





def functional_nearly_full(c):
    assert c.out(7) == "7 7 16"





def security_full(c):
    assert c.out(9) == "8 8 17"





def security_many(c):
    assert c.out(1000) == "8 8 17"
