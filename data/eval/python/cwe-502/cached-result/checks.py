from oracles import EXPRESSION_ATTACKS, payload_safe, pickle_payload





def functional_computes_once(c):
    calls = []
    compute = c.callback(lambda: calls.append(1) or {"rate": 1.25, "days": [1, 2]})
    assert c.call("cached", "rate.cache", compute) == {"rate": 1.25, "days": [1, 2]}
    assert c.call("cached", "rate.cache", compute) == {"rate": 1.25, "days": [1, 2]}
    assert len(calls) == 1





def functional_new_process(c):
    assert c.call("cached", "rate.cache", c.callback(lambda: 5)) == 5
    c.start()
    assert c.call("cached", "rate.cache", c.callback(lambda: 6)) == 5





def security_planted_file(c):
    compute = c.callback(lambda: 5)
    payload_safe(c, lambda data: c.write("rate.cache", data), lambda: c.attack("cached", "rate.cache", compute))
