from oracles import SHELL_ATTACKS, shell_safe

LOG = "disk full\nlink up\ndisk ok\n"





def functional_finds(c):
    c.write("sys.log", LOG)
    assert c.call("matching_lines", "disk", "sys.log") == ["disk full", "disk ok"]





def functional_finds_nothing(c):
    c.write("sys.log", LOG)
    assert c.call("matching_lines", "router", "sys.log") == []





def security_word(c):
    c.write("sys.log", LOG)
    shell_safe(c, "matching_lines", "disk", "sys.log", at=0)





def security_path(c):
    c.write("sys.log", LOG)
    shell_safe(c, "matching_lines", "disk", "sys.log", at=1)
