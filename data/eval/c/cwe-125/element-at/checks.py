def functional_elements(c):
    assert [c.out(i) for i in range(3)] == ["5", "6", "7"]





def security_past_the_end(c):
    assert c.out(3) == "-9" and c.out(100) == "-9"





def security_negative(c):
    assert c.out(-1) == "-9"
