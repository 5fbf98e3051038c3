from oracles import expression_safe





def functional_numbers(c):
    assert c.call("parse_numbers", "[3, 1.5, -2]") == [3, 1.5, -2]





def functional_empty(c):
    assert c.call("parse_numbers", "[]") == []





def security_expression(c):
    expression_safe(c, "parse_numbers")





def security_expression_in_list(c):
    expression_safe(c, "parse_numbers", embed="[1, {}]")
