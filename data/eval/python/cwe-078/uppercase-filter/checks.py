from oracles import SHELL_ATTACKS, shell_safe





def functional_capitals(c):
    assert c.call("shout", "quiet room").strip() == "QUIET ROOM"





def security_runs_nothing_else(c):
    shell_safe(c, "shout")





def security_quotes(c):
    shell_safe(c, "shout", "it", attacks=["it's; mkdir pwned; 'x", "'$(mkdir pwned)'"])
