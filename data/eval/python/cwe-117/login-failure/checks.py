from oracles import LINE_BREAKS, one_line

LOG = {"$logger": "app.log"}





def functional_warns(c):
    c.call("log_failed_login", LOG, "nina")
    line, = c.lines("app.log")
    assert line.startswith("WARNING") and "nina" in line





def functional_two(c):
    c.call("log_failed_login", LOG, "nina")
    c.call("log_failed_login", LOG, "olaf")
    assert len(c.lines("app.log")) == 2





def security_one_line(c):
    one_line(c, "app.log", lambda text: c.attack("log_failed_login", LOG, text))
