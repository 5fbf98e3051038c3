from oracles import LINE_BREAKS, one_line





def functional_appends(c):
    c.call("audit", "audit.log", "ben", "reads file")
    c.call("audit", "audit.log", "eve", "logs out")
    assert c.read("audit.log") == "ben: reads file\neve: logs out\n"





def security_user(c):
    one_line(c, "audit.log", lambda text: c.attack("audit", "audit.log", text, "act"))





def security_action(c):
    one_line(c, "audit.log", lambda text: c.attack("audit", "audit.log", "ben", text))
