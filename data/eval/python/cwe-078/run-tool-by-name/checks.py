from oracles import SHELL_ATTACKS, shell_safe

SETUP = "start = Toolbox().start"





def functional_prints(c):
    c.execute(SETUP)
    assert c.call("start", "hello") == "hello"





def functional_extra(c):
    c.execute(SETUP)
    assert c.call("start", "hello", "dear", "world") == "hello dear world"





def security_extra_is_no_command(c):
    c.execute(SETUP)
    shell_safe(c, "start", "hello", "world")
