def functional_last(c):
    assert c.out(3, 9, 27) == "27" and c.out(5) == "5"





def security_no_events(c):
    assert c.out() == "-1"
