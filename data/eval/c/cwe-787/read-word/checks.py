def functional_two_words(c):
    assert c.out(16, stdin=b"hello world\n") == "5:hello\n5:world"





def functional_end_of_file(c):
    assert c.out(16, stdin=b"last") == "4:last\n0:"





def security_long_word(c):
    assert c.out(4, stdin=b"elephant cat") == "3:ele\n3:cat"





def security_just_too_long(c):
    assert c.out(5, stdin=b"horse cat") == "4:hors\n3:cat"
