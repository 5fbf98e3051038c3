def functional_fits(c):
    assert c.out(32, "etc", "hosts") == "0 etc/hosts"





def functional_just_fits(c):
    assert c.out(10, "etc", "hosts") == "0 etc/hosts"





def security_one_too_long(c):
    assert c.out(9, "etc", "hosts") == "-1 "





def security_much_too_long(c):
    assert c.out(8, "a" * 100, "b" * 200) == "-1 "
