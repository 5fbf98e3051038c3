from oracles import strong_digest





def functional_stable(c):
    assert c.call("visitor_id", "10.0.0.1", "s") == c.call("visitor_id", "10.0.0.1", "s")
    assert c.call("visitor_id", "10.0.0.1", "s") != c.call("visitor_id", "10.0.0.2", "s")





def functional_depends_on_secret(c):
    assert c.call("visitor_id", "10.0.0.1", "s") != c.call("visitor_id", "10.0.0.1", "t")





def security_strong(c):
    strong_digest(c.call("visitor_id", "10.0.0.1", "s"), b"s10.0.0.1")
