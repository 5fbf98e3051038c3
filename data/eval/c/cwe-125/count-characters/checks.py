def functional_ascii(c):
    assert c.out("hello", 0) == "5"





def functional_wide(c):
    assert c.out("\u00fc\u20ac\U0001f600x", 0) == "4"





def security_cut_pair(c):
    assert c.out("ab\u00fc", 1) == "2"





def security_cut_four(c):
    assert c.out("ab\U0001f600", 3) == "2"
