def functional_copies(c):
    assert c.out(0, "dune") == "dune" and c.out(0, "") == ""





def security_no_memory(c):
    assert c.out(1, "dune") == "NULL"
