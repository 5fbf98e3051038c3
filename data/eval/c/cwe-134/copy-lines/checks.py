def functional_lines(c):
    assert c.out(stdin=b"a\nb c\n") == "> a\n> b c\n2"





def functional_none(c):
    assert c.out(stdin=b"") == "0"





def security_conversions_are_text(c):
    assert c.out(stdin=b"50%% off\n%08x\n") == "> 50%% off\n> %08x\n2"
