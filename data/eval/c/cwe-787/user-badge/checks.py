def functional_badge(c):
    assert c.out(7, "Ida") == "#7 Ida"





def security_long_name(c):
    assert c.out(7, "M" * 60) == "#7 " + "M" * 20





def security_long_id(c):
    assert c.out(-2000000000, "Bartholomew Q") == "#-2000000000 Bartholome"
