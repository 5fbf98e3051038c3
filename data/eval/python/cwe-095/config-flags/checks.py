from oracles import expression_safe





def functional_values(c):
    lines = ["debug = True", "port = 8080", "host = 'localhost'"]
    assert c.call("read_flags", lines) == {"debug": True, "port": 8080, "host": "localhost"}





def functional_no_lines(c):
    assert c.call("read_flags", []) == {}





def security_value(c):
    for attack in ("__import__('os').mkdir('pwned')", "[print(1), __import__('os').mkdir('pwned')]"):
        c.attack("read_flags", ["debug = True", "port = " + attack])
        assert not c.found("pwned"), attack
