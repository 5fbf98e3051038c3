def functional_decodes(c):
    assert c.out("a%20b%4Dc") == "a bMc"





def functional_plain(c):
    assert c.out("plain") == "plain"





def security_cut_after_percent(c):
    assert c.out("50%") == "50%"





def security_cut_after_digit(c):
    assert c.out("x%4") == "x%4"
