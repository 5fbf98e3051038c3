def functional_renames(c):
    assert c.kept("Bob", -1, "Roberta") == "Roberta"





def security_own_name(c):
    assert c.out("Roberta", 0) == "Roberta"





def security_part_of_own_name(c):
    assert c.out("Anna-Maria", 5) == "Maria"





def security_no_memory(c):
    assert c.out("Bob", -1, "Roberta", "fail") == "Bob"
