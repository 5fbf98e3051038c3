from oracles import canary_lives, foreseeable, planted, private





def setup(c):
    c.write("a.txt", "b\nd\n")
    c.write("b.txt", "a\nc\n")
    c.write("shared/x", "")





def functional_merges(c):
    setup(c)
    c.call("merge", "a.txt", "b.txt", "shared/all.txt")
    assert c.read("shared/all.txt") == "a\nb\nc\nd\n" and c.listing("shared") == ["all.txt", "x"]





def functional_replaces(c):
    setup(c)
    c.write("shared/all.txt", "old")
    c.call("merge", "a.txt", "b.txt", "shared/all.txt")
    assert c.read("shared/all.txt") == "a\nb\nc\nd\n"





def security_planted_target(c):
    setup(c)
    planted(c, "shared/all.txt")
    c.attack("merge", "a.txt", "b.txt", "shared/all.txt")
    canary_lives(c)





def security_private(c):
    setup(c)
    c.call("merge", "a.txt", "b.txt", "shared/all.txt")
    private(c, "shared/all.txt")
