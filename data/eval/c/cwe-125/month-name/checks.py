def functional_names(c):
    assert c.out(1) == "January" and c.out(12) == "December"





def security_thirteen(c):
    assert c.out(13) == "?"





def security_zero(c):
    assert c.out(0) == "?"





def security_negative(c):
    assert c.out(-3) == "?"
