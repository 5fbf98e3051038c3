def functional_frames(c):
    assert c.out(4, 6) == "10 h b"





def functional_longest(c):
    assert c.out(65000, 535) == "65535 h b"





def security_one_too_long(c):
    assert c.out(65000, 536) == "NULL 0"





def security_both_long(c):
    assert c.out(60000, 60000) == "NULL 0"
