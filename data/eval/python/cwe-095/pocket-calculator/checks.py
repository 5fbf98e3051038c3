from oracles import expression_safe





def functional_product(c):
    assert c.call("calculate", "2.5 * 4") == 10





def functional_quotient(c):
    assert c.call("calculate", "9 / 4") == 2.25





def functional_difference(c):
    assert c.call("calculate", "3 - 5") == -2





def security_expression(c):
    expression_safe(c, "calculate")





def security_operand(c):
    expression_safe(c, "calculate", embed="1 + {}")
    expression_safe(c, "calculate", embed="1 + len(str({}))")
