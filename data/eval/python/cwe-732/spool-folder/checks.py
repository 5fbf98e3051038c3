from oracles import private





def functional_makes(c):
    assert c.call("spool_for", "liv") == "spool/liv"
    assert c.mode("spool/liv") & 0o700 == 0o700





def functional_keeps(c):
    c.call("spool_for", "liv")
    c.write("spool/liv/1.eml", "mail")
    c.call("spool_for", "liv")
    assert c.listing("spool/liv") == ["1.eml"]





def security_only_owner(c):
    c.call("spool_for", "liv")
    private(c, "spool/liv")
