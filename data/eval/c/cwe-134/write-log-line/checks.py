def functional_line(c):
    assert c.out("server is up") == "server is up"





def functional_empty(c):
    assert c.out("") == ""





def security_conversions_are_text(c):
    assert c.out("%08x|%5d|%p") == "%08x|%5d|%p"





def security_percent_signs(c):
    assert c.out("disk 100%% full") == "disk 100%% full"
