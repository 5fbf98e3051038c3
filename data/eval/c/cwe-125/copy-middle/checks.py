def functional_middle(c):
    assert c.out("waterfall", 2, 3) == "[ter]"





def functional_to_the_end(c):
    assert c.out("waterfall", 5, 4) == "[fall]"





def security_too_long(c):
    assert c.out("waterfall", 5, 90) == "[fall]"





def security_offset_beyond(c):
    assert c.out("water", 6, 3) == "[]" and c.out("water", 40, 3) == "[]"
