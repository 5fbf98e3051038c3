def functional_encodes(c):
    assert c.out(16, "AZ~") == "0 415a7e"





def functional_just_fits(c):
    assert c.out(7, "AZ~") == "0 415a7e"





def security_no_room_for_nul(c):
    assert c.out(6, "AZ~") == "-1 "





def security_no_room(c):
    assert c.out(4, "a longer text") == "-1 "
