def setup(c):
    c.write("themes/plain/style.css", "p{}")
    c.write("themes/dark/style.css", "d{}")
    c.write("private/style.css", "CANARY")





def functional_known(c):
    setup(c)
    assert c.call("theme_css", "themes", "dark") == "d{}"





def functional_unknown(c):
    setup(c)
    assert c.call("theme_css", "themes", "pink") == "p{}"





def security_dots(c):
    setup(c)
    assert "CANARY" not in repr(c.attack("theme_css", "themes", "../private"))
    assert "CANARY" not in repr(c.attack("theme_css", "themes", "dark/../../private"))





def security_absolute(c):
    setup(c)
    assert "CANARY" not in repr(c.attack("theme_css", "themes", c.path("private")))
