from oracles import strong_digest





def functional_order_matters(c):
    assert c.call("chain_digest", [b"a", b"b"]) != c.call("chain_digest", [b"b", b"a"])





def functional_repeats(c):
    assert c.call("chain_digest", [b"a", b"b"]) == c.call("chain_digest", [b"a", b"b"])





def functional_empty(c):
    assert c.call("chain_digest", []) == b""





def security_strong(c):
    strong_digest(c.call("chain_digest", [b"a"]), b"a")
