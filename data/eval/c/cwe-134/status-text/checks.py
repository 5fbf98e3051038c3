def functional_status(c):
    assert c.out("busy") == "busy" and c.out("") == "unknown"





def functional_cut(c):
    assert c.out("x" * 40) == "x" * 19





def security_conversions_are_text(c):
    assert c.out("%x %d %5c") == "%x %d %5c"
