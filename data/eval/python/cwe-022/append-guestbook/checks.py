def setup(c):
    c.write("events/wedding", "Ann\n")
    c.write("passwd", "CANARY")
    c.execute("sign = Guestbooks('events').sign")





def functional_appends(c):
    setup(c)
    c.call("sign", "wedding", "Ben")
    assert c.lines("events/wedding") == ["Ann", "Ben"]





def functional_new_event(c):
    setup(c)
    c.call("sign", "opening", "Cleo")
    assert c.lines("events/opening") == ["Cleo"]





def security_outside_untouched(c):
    setup(c)
    for event in ("../passwd", c.path("passwd")):
        c.attack("sign", event, "evil")
        assert c.read("passwd") == "CANARY"





def security_outside_not_created(c):
    setup(c)
    c.attack("sign", "../cron", "evil")
    assert not c.exists("cron")
