def functional_quotes(c):
    assert c.out("tree") == '"tree"' and c.out("") == '""'





def security_conversions_are_text(c):
    assert c.out("%x %% %d") == '"%x %% %d"'
