from oracles import SHELL_ATTACKS, shell_safe





def functional_prints(c):
    c.call("print_banner", "Marta")
    assert c.stdout().split() == ["Welcome", "Marta"]





def security_runs_nothing_else(c):
    shell_safe(c, "print_banner")
