def functional_prices(c):
    assert c.out("salt", 3) == "270" and c.out("honey", 1) == "740"





def security_unknown_item(c):
    assert c.out("pepper", 1) == "-1"





def security_no_name(c):
    assert c.out("", 2) == "-1"
