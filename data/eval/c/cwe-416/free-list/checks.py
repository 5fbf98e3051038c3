def functional_counts(c):
    assert c.kept(3) == "3"





def functional_empty(c):
    assert c.kept(0) == "0"





def security_one(c):
    assert c.out(1) == "1"





def security_many(c):
    assert c.out(5) == "5"
