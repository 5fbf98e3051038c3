def functional_appends(c):
    assert c.kept(1, 2, 3) == "1 2 3 ."





def functional_grows(c):
    assert c.kept(1, 2, 3, 4, 5, 6) == "1 2 3 4 5 6 ."





def functional_own_item_with_room(c):
    assert c.kept(8, "first") == "8 8 ."





def security_own_item_while_growing(c):
    assert c.out(8, 2, 3, 4, "first", "first") == "8 2 3 4 8 8 ."
