def functional_pair(c):
    assert c.out(0, "Ada", "King") == "Ada King"





def security_no_memory_at_all(c):
    assert c.out(1, "Ada", "King") == "NULL"





def security_no_memory_for_first(c):
    assert c.out(2, "Ada", "King") == "NULL"





def security_no_memory_for_last(c):
    assert c.out(3, "Ada", "King") == "NULL"
