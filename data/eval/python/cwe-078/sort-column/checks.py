from oracles import SHELL_ATTACKS, shell_safe





def functional_sorts(c):
    c.write("team.csv", "zoe,3\nbob,1\nmia,2\n")
    assert c.call("sorted_names", "team.csv") == ["bob", "mia", "zoe"]





def security_runs_nothing_else(c):
    c.write("team.csv", "zoe,3\n")
    shell_safe(c, "sorted_names")
