def functional_both(c):
    assert c.out("Dr", "Wu") == "5 Dr Wu"





def functional_no_title(c):
    assert c.out("", "Wu") == "2 Wu"





def functional_cut(c):
    assert c.out("Professor", "Robinson") == "15 Professor Robin"





def security_title_null(c):
    assert c.out("NULL", "Wu") == "2 Wu"





def security_name_null(c):
    assert c.out("Dr", "NULL") == "6 nobody" and c.out("NULL", "NULL") == "6 nobody"
