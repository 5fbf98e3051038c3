from oracles import canary_lives, foreseeable, planted, private

SETUP = "report = lambda text: dump_error(ValueError(text), 'dumps')"





def functional_dumps(c):
    c.write("dumps/x", "")
    c.execute(SETUP)
    name = c.call("report", "bad size")
    assert name.endswith(".dump") and "/" not in name
    assert c.read("dumps/" + name).strip() == "ValueError: bad size"





def security_planted_link(c):
    c.write("dumps/x", "")
    c.execute(SETUP)
    name = c.call("report", "one")
    planted(c, "dumps/" + name)
    c.start()
    c.execute(SETUP)
    c.attack("report", "two")
    canary_lives(c)





def security_private(c):
    c.write("dumps/x", "")
    c.execute(SETUP)
    private(c, "dumps/" + c.call("report", "one"))
