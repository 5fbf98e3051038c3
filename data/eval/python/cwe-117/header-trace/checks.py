from oracles import LINE_BREAKS, one_line

LOG = {"$logger": "trace.log"}





def functional_each(c):
    c.call("trace_headers", LOG, {"Host": "a.test", "Accept": "*/*"})
    assert c.lines("trace.log") == ["DEBUG Host=a.test", "DEBUG Accept=*/*"]





def security_value(c):
    one_line(c, "trace.log", lambda text: c.attack("trace_headers", LOG, {"Host": text}))





def security_name(c):
    one_line(c, "trace.log", lambda text: c.attack("trace_headers", LOG, {text: "x"}))
