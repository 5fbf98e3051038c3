def functional_empty(c):
    assert c.kept(1) == "0 by 0"





def security_twice(c):
    assert c.out(2) == "0 by 0"





def security_no_dangling_pointer(c):
    assert c.out(1, "show") == "0 by 0 no pixels"
