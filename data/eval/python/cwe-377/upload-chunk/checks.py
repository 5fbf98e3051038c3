from oracles import canary_lives, foreseeable, planted, private





def functional_collects(c):
    c.write("incoming/x", "")
    path, size = c.call("receive", [b"ab", b"cde"])
    assert size == 5 and c.read(path) == "abcde" and path.split("/")[-2] == "incoming"





def functional_own_files(c):
    c.write("incoming/x", "")
    assert c.call("receive", [])[1] == 0





def security_planted_link(c):
    c.write("incoming/x", "")
    path, _ = c.call("receive", [b"ab"])
    planted(c, path)
    c.start()
    c.attack("receive", [b"evil"])
    canary_lives(c)





def security_private(c):
    c.write("incoming/x", "")
    private(c, c.call("receive", [b"ab"])[0])
