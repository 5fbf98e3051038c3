from oracles import EXPRESSION_ATTACKS, payload_safe, pickle_payload





def functional_untouched(c):
    seen = []
    worker = c.callback(lambda path, argument: seen.append(argument))
    assert c.call("run_isolated", worker, {"n": 3}) == {"n": 3} and seen == [{"n": 3}]





def functional_leaves_no_file(c):
    c.call("run_isolated", c.callback(lambda path, argument: None), [1])
    assert c.listing() == []





def security_hostile_worker(c):
    for data in (pickle_payload(), EXPRESSION_ATTACKS[0].encode()):
        def worker(path, argument):
            with open(c.path(path), "wb") as file:
                file.write(data)
        c.attack("run_isolated", c.callback(worker), {})
        assert not c.found("pwned")
