def functional_seconds(c):
    assert c.out(2, 30) == "1 172830" and c.out(0, 5) == "1 5"





def functional_largest(c):
    assert c.out(24855, 11647) == "1 2147483647"





def security_product(c):
    assert c.out(24856, 0) == "0 0" and c.out(99421, 0) == "0 0"





def security_sum(c):
    assert c.out(24855, 11648) == "0 0"
