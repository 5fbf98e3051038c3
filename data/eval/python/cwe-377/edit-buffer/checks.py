from oracles import canary_lives, foreseeable, planted, private





def functional_edits(c):
    c.write("tmp/x", "")
    def editor(path):
        assert c.read(path) == "dear"
        c.write(path, "dear all")
    assert c.call("edit_copy", "tmp", "dear", c.callback(editor)) == "dear all"
    assert c.listing("tmp") == ["x"]





def security_planted_link(c):
    c.write("tmp/x", "")
    seen = []
    c.call("edit_copy", "tmp", "dear", c.callback(seen.append))
    planted(c, seen[0])
    c.start()
    c.attack("edit_copy", "tmp", "dear", c.callback(seen.append))
    canary_lives(c)





def security_private(c):
    c.write("tmp/x", "")
    modes = []
    c.call("edit_copy", "tmp", "dear", c.callback(lambda path: modes.append(c.mode(path))))
    assert modes[0] & 0o077 == 0, oct(modes[0])
