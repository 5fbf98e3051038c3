def setup(c):
    c.write("gallery/sea/b.jpg", "")
    c.write("gallery/sea/a.jpg", "")
    c.write("vault/CANARY", "")





def functional_lists(c):
    setup(c)
    assert c.call("pictures_in", "gallery", "sea") == ["a.jpg", "b.jpg"]





def functional_unknown(c):
    setup(c)
    assert c.call("pictures_in", "gallery", "hills") == []





def security_dots(c):
    setup(c)
    assert "CANARY" not in repr(c.attack("pictures_in", "gallery", "../vault"))
    assert "vault" not in repr(c.attack("pictures_in", "gallery", ".."))





def security_absolute(c):
    setup(c)
    assert "CANARY" not in repr(c.attack("pictures_in", "gallery", c.path("vault")))
