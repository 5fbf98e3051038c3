from oracles import strong_digest

SETUP = "digest = TokenStore().digest"





def functional_differs(c):
    c.execute(SETUP)
    assert c.call("digest", "t-1") != c.call("digest", "t-2")
    assert c.call("digest", "t-1") == c.call("digest", "t-1")





def functional_hides_token(c):
    c.execute(SETUP)
    assert "secret" not in c.call("digest", "secret")





def security_strong(c):
    c.execute(SETUP)
    strong_digest(c.call("digest", "t-1"), b"t-1")
