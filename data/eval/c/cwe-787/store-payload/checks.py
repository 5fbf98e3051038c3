def functional_stores(c):
    assert c.out(5, 5) == "0 5 ppppp"





def functional_full(c):
    assert c.out(32, 32) == "0 32 " + "p" * 32





def functional_too_few_bytes(c):
    assert c.out(9, 3).startswith("-1")





def security_one_too_many(c):
    assert c.out(33, 33).startswith("-1")





def security_most(c):
    assert c.out(255, 255).startswith("-1")
