def functional_second(c):
    assert c.out("one three five") == "5" and c.out("go  home") == "4"





def security_one_word(c):
    assert c.out("alone") == "0"





def security_no_word(c):
    assert c.out("") == "0"
