def functional_path(c):
    assert c.out(40, "maps", "/home/kim") == "0 /home/kim/.cache/maps"





def functional_too_long(c):
    assert c.out(10, "maps", "/home/kim") == "-1 "





def security_no_home(c):
    assert c.out(40, "maps") == "-1 "
