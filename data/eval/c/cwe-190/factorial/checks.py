def functional_small(c):
    assert c.out(0) == "1" and c.out(5) == "120"





def functional_largest(c):
    assert c.out(20) == "2432902008176640000"





def security_first_too_large(c):
    assert c.out(21) == "-1"





def security_far_too_large(c):
    assert c.out(66) == "-1" and c.out(200) == "-1"
