def functional_notes(c):
    assert c.out("one", "two") == "one;two;"





def functional_none(c):
    assert c.out() == ""





def security_conversions_are_text(c):
    assert c.out("one", "%d%%", "%x") == "one;%d%%;%x;"
