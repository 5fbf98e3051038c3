def functional_pads(c):
    assert c.out("42", 6) == "[    42]"





def functional_long_text(c):
    assert c.out("longer", 3) == "[longer]"





def security_conversions_are_text(c):
    assert c.out("%d", 6) == "[    %d]" and c.out("%%", 4) == "[  %%]"
