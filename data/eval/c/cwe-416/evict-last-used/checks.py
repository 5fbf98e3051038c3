def functional_evicts(c):
    assert c.kept(0, "k1").startswith("left 2 sum 20")





def functional_unknown_key(c):
    assert c.kept(1, "k9") == "left 3 sum 30 last k1"





def functional_other_item(c):
    assert c.kept(1, "k2") == "left 2 sum 10 last k1"





def security_last_used(c):
    assert c.out(1, "k1") == "left 2 sum 20 last -"





def security_twice(c):
    assert c.out(0, "k2", "k2") == "left 2 sum 10 last k0"
