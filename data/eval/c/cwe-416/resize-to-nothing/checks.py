def functional_grows(c):
    assert c.kept(100) == "0:6/100 abcdef"





def functional_shrinks(c):
    assert c.kept(3) == "0:3/3 abc"





def functional_to_nothing(c):
    assert c.kept(0).strip() == "0:0/0"





def security_used_again(c):
    assert c.out(0, 16).strip() == "0:0/0 0:0/16"





def security_nothing_twice(c):
    assert c.out(0, 0).strip() == "0:0/0 0:0/0"
