from oracles import private





def functional_writes(c):
    c.call("store_token", "token", "t0ps3cret")
    assert c.read("token") == "t0ps3cret" and c.mode("token") & 0o600 == 0o600





def functional_replaces(c):
    c.write("token", "a much longer old token", mode=0o600)
    c.call("store_token", "token", "new")
    assert c.read("token") == "new"





def security_only_owner(c):
    c.call("store_token", "token", "t0ps3cret")
    private(c, "token")
