def setup(c):
    c.write("recipes/soup.txt", "leek")
    c.write("recipes-private/sauce.txt", "CANARY")
    c.write("keys.txt", "CANARY")





def functional_reads(c):
    setup(c)
    assert c.call("read_recipe", "soup.txt") == "leek"





def functional_none(c):
    setup(c)
    assert c.call("read_recipe", "cake.txt") is None





def security_dots(c):
    setup(c)
    for name in ("../keys.txt", "../recipes/../keys.txt", "....//keys.txt"):
        assert "CANARY" not in repr(c.attack("read_recipe", name))





def security_absolute(c):
    setup(c)
    assert "CANARY" not in repr(c.attack("read_recipe", c.path("keys.txt")))





def security_sibling_folder(c):
    setup(c)
    assert "CANARY" not in repr(c.attack("read_recipe", "../recipes-private/sauce.txt"))
