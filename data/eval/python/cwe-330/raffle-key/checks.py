from oracles import unpredictable





def functional_count_and_size(c):
    keys = list(c.call("make_keys", 5))
    assert len(keys) == 5
    assert c.evaluate("sorted(len(key) for key in result)") == [16] * 5





def functional_none(c):
    assert len(c.call("make_keys", 0)) == 0





def security_unpredictable(c):
    unpredictable(c, "make_keys", 2)
