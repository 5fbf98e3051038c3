def functional_complains(c):
    assert c.out("sort", "no such file") == "sort: error: no such file"





def security_what(c):
    assert c.out("sort", "%x%x") == "sort: error: %x%x"





def security_program(c):
    assert c.out("./%d", "stop") == "./%d: error: stop"
