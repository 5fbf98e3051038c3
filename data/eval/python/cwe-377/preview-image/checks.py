from oracles import canary_lives, foreseeable, planted, private





def functional_empty_file(c):
    c.write("cache/x", "")
    path = c.call("preview_path", "cache", "pics/cat.jpg")
    assert path.startswith("cache/") or "/cache/" in path
    assert path.endswith(".png") and c.read(path) == ""





def security_planted_link(c):
    c.write("cache/x", "")
    path = c.call("preview_path", "cache", "pics/cat.jpg")
    planted(c, path)
    c.start()
    c.attack("preview_path", "cache", "pics/cat.jpg")
    canary_lives(c)





def security_private(c):
    c.write("cache/x", "")
    private(c, c.call("preview_path", "cache", "pics/cat.jpg"))
