from oracles import strong_digest





def functional_once(c):
    found = c.call("unique_uploads", [b"x", b"yy", b"x"])
    assert sorted(found.values()) == [b"x", b"yy"]





def functional_none(c):
    assert c.call("unique_uploads", []) == {}





def security_strong(c):
    (key,) = c.call("unique_uploads", [b"x"])
    strong_digest(key, b"x")
