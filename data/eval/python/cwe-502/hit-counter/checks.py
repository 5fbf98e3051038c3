from oracles import EXPRESSION_ATTACKS, payload_safe, pickle_payload





def functional_counts(c):
    assert [c.call("count_visit", "visits", page) for page in ("a", "b", "a")] == [1, 1, 2]





def functional_new_process(c):
    c.call("count_visit", "visits", "a")
    c.start()
    assert c.call("count_visit", "visits", "a") == 2





def security_planted_file(c):
    payload_safe(c, lambda data: c.write("visits", data), lambda: c.attack("count_visit", "visits", "a"))
