from oracles import SHELL_ATTACKS, shell_safe





def functional_counts(c):
    c.write("notes.txt", "one\ntwo\nthree\n")
    assert c.call("count_lines", "notes.txt") == 3





def functional_empty(c):
    c.write("none.txt", "")
    assert c.call("count_lines", "none.txt") == 0





def security_runs_nothing_else(c):
    shell_safe(c, "count_lines")
