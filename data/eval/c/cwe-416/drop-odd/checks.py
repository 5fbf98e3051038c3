def functional_mixed(c):
    assert c.kept(1, 2, 3, 4, 7) == "2 4 ."





def functional_only_even(c):
    assert c.kept(2, 4, 8) == "2 4 8 ."





def functional_empty(c):
    assert c.kept() == "."





def security_mixed(c):
    assert c.out(1, 2, 3, 4) == "2 4 ."





def security_all_odd(c):
    assert c.out(5, 7, 9) == "."
