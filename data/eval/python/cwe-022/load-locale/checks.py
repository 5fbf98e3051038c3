def setup(c):
    c.write("locale/fr.json", '{"hello": "bonjour"}')
    c.write("config.json", '{"token": "CANARY"}')





def functional_translates(c):
    setup(c)
    assert c.call("translation", "fr", "hello") == "bonjour"





def functional_falls_back(c):
    setup(c)
    assert c.call("translation", "fr", "bye") == "bye"
    assert c.call("translation", "it", "hello") == "hello"





def security_dots(c):
    setup(c)
    assert "CANARY" not in repr(c.attack("translation", "../config", "token"))





def security_absolute(c):
    setup(c)
    assert "CANARY" not in repr(c.attack("translation", c.path("config"), "token"))
