def setup(c):
    c.write("parts/head.txt", "HEAD")
    c.write("parts/foot.txt", "FOOT")
    c.write("secret.txt", "CANARY")





def functional_expands(c):
    setup(c)
    assert c.call("expand_includes", "<{include head.txt}|{include foot.txt}>", "parts") == "<HEAD|FOOT>"





def functional_nothing_to_do(c):
    setup(c)
    assert c.call("expand_includes", "plain", "parts") == "plain"





def security_dots(c):
    setup(c)
    assert "CANARY" not in repr(c.attack("expand_includes", "{include ../secret.txt}", "parts"))





def security_absolute(c):
    setup(c)
    assert "CANARY" not in repr(c.attack("expand_includes", "{include " + c.path("secret.txt") + "}", "parts"))
