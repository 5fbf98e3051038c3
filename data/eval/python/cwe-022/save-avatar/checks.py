def setup(c):
    c.write("avatars/old.png", "old")
    c.write("app.cfg", "CANARY")





def functional_stores(c):
    setup(c)
    path = c.call("save_avatar", "avatars", "me.png", b"\x01\x02")
    assert c.read("avatars/me.png") == "\x01\x02" and path.endswith("me.png")





def functional_replaces(c):
    setup(c)
    c.call("save_avatar", "avatars", "old.png", b"new")
    assert c.read("avatars/old.png") == "new"





def security_outside_not_overwritten(c):
    setup(c)
    for name in ("../app.cfg", c.path("app.cfg"), "../avatars/../app.cfg"):
        c.attack("save_avatar", "avatars", name, b"evil")
        assert c.read("app.cfg") == "CANARY", name





def security_outside_not_created(c):
    setup(c)
    c.attack("save_avatar", "avatars", "../startup.py", b"evil")
    assert not c.exists("startup.py")
