def setup(c):
    c.write("www/css/site.css", "body{}")
    c.write("users.db", "CANARY")





def functional_found(c):
    setup(c)
    assert c.call("static_response", "www", "/css/site.css") == [200, b"body{}"]





def functional_not_found(c):
    setup(c)
    assert c.call("static_response", "www", "/css/none.css") == [404, b""]





def security_dots(c):
    setup(c)
    assert "CANARY" not in repr(c.attack("static_response", "www", "/../users.db"))
    assert "CANARY" not in repr(c.attack("static_response", "www", "/css/../../users.db"))





def security_no_hint(c):
    setup(c)
    outcome = c.attack("static_response", "www", "/css/../../users.db")
    assert outcome.value is None or outcome.value[0] != 200
