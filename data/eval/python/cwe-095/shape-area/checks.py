from oracles import expression_safe





def functional_square(c):
    assert c.call("area", "square(3)") == 9





def functional_circle(c):
    assert abs(c.call("area", "circle(2)") - 12.56636) < 1e-6





def security_command(c):
    expression_safe(c, "area")





def security_argument(c):
    expression_safe(c, "area", embed="square({})")
