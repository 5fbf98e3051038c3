def functional_fits(c):
    assert c.out(16, "north gate") == "north gate"





def functional_empty(c):
    assert c.out(4, "") == ""





def security_longer(c):
    assert c.out(6, "north gate") == "north"





def security_exactly_too_long(c):
    assert c.out(10, "north gate") == "north gat"





def security_room_for_nul_only(c):
    assert c.out(1, "abc") == ""
