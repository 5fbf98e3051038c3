from oracles import LINE_BREAKS, one_line

SETUP = "add = EventLog('events.csv', clock=lambda: 77.9).add"





def functional_appends(c):
    c.execute(SETUP)
    c.call("add", "start")
    c.call("add", "stop")
    assert c.read("events.csv") == "77,start\n77,stop\n"





def security_event(c):
    c.execute(SETUP)
    one_line(c, "events.csv", lambda text: c.attack("add", text))
