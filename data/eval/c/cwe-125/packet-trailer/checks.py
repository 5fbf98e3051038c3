def functional_trailer(c):
    assert c.out("dataAZ") == "415a"





def functional_only_trailer(c):
    assert c.out("AZ") == "415a"





def security_one_byte(c):
    assert c.out("A") == "0000"





def security_empty(c):
    assert c.out("") == "0000"
