def functional_removes(c):
    assert c.kept(2, 2, 1, 2, 3) == "1 3 ."





def functional_nothing_to_remove(c):
    assert c.kept(9, 1, 2, 3) == "1 2 3 ."





def functional_empty(c):
    assert c.kept(9) == "."





def security_middle(c):
    assert c.out(2, 1, 2, 3) == "1 3 ."





def security_neighbours(c):
    assert c.out(2, 2, 2, 3, 2) == "3 ."
