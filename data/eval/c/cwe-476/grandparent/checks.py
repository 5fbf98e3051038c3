def functional_three_levels(c):
    assert c.out("home", "eva", "mail") == "home"





def functional_four_levels(c):
    assert c.out("home", "eva", "mail", "new") == "eva"





def security_two_levels(c):
    assert c.out("home", "eva") == "/"





def security_top(c):
    assert c.out("home") == "/"
