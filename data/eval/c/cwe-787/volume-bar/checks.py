def functional_half(c):
    assert c.out(50) == "[==========]"





def functional_ends(c):
    assert c.out(0) == "[]" and c.out(100) == "[" + "=" * 20 + "]"





def security_above(c):
    assert c.out(105) == "[" + "=" * 20 + "]" and c.out(100000) == "[" + "=" * 20 + "]"





def security_below(c):
    assert c.out(-30) == "[]"
