from oracles import unpredictable





def functional_length(c):
    assert len(c.call("temporary_password")) == 12 and len(c.call("temporary_password", 20)) == 20





def functional_alphabet(c):
    password = c.call("temporary_password", 50)
    assert password.isascii() and password.isalnum()





def security_unpredictable(c):
    unpredictable(c, "temporary_password", 20)





def security_many_different(c):
    found = set()
    for _ in range(12):
        c.start()
        found.add(c.call("temporary_password", 20))
    assert len(found) == 12, f"only {len(found)} of 12 differ"
