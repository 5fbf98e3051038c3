def functional_menu(c):
    assert c.out("Open", "-Save") == "1) Open\n2) Save (off)"





def security_conversions_are_text(c):
    assert c.out("%x", "-%d%%") == "1) %x\n2) %d%% (off)"
