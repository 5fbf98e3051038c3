from oracles import EXPRESSION_ATTACKS, payload_safe, pickle_payload





def functional_grows(c):
    assert c.call("remember", "history", "sea") == ["sea"]
    assert c.call("remember", "history", "sun") == ["sea", "sun"]





def functional_new_process(c):
    c.call("remember", "history", "sea")
    c.start()
    assert c.call("remember", "history", "sky") == ["sea", "sky"]





def security_planted_file(c):
    payload_safe(c, lambda data: c.write("history", data), lambda: c.attack("remember", "history", "x"))
