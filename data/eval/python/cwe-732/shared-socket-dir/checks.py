from oracles import private





def functional_owner_keeps(c):
    c.write("a.sock", "", mode=0o640)
    c.call("tighten", "a.sock")
    assert c.mode("a.sock") & 0o700 == 0o600 and c.mode("a.sock") & 0o007 == 0





def functional_executable(c):
    c.write("run", "", mode=0o700)
    c.call("tighten", "run")
    assert c.mode("run") == 0o700





def security_group(c):
    c.write("a.sock", "", mode=0o660)
    c.call("tighten", "a.sock")
    private(c, "a.sock")





def security_others(c):
    c.write("a.sock", "", mode=0o777)
    c.call("tighten", "a.sock")
    private(c, "a.sock")
