def functional_adds(c):
    assert c.out(100, 50) == "1 150" and c.out(100, -150) == "1 -50"





def functional_limit(c):
    assert c.out(2147483600, 47) == "1 2147483647"





def security_too_much(c):
    assert c.out(2147483600, 48) == "0 2147483600"





def security_too_little(c):
    assert c.out(-2147483600, -49) == "0 -2147483600"
