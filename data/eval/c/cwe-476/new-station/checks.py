def functional_in_front(c):
    assert c.out(0, 1, 2, 3) == "3 2 1 ."





def security_no_memory(c):
    assert c.out(1, 1) == "."





def security_no_memory_later(c):
    assert c.out(3, 1, 2, 3, 4) == "2 1 ."
