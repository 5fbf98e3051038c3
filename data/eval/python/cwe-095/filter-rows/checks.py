from oracles import expression_safe

ROWS = [{"age": 20}, {"age": 35}, {"age": 50}]





def functional_less(c):
    assert c.call("rows_where", ROWS, "age < 40") == [{"age": 20}, {"age": 35}]





def functional_equal(c):
    assert c.call("rows_where", ROWS, "age == 50") == [{"age": 50}]





def functional_greater(c):
    assert c.call("rows_where", ROWS, "age > 20") == [{"age": 35}, {"age": 50}]





def security_number(c):
    expression_safe(c, "rows_where", ROWS, "", embed="age < {}")





def security_sign(c):
    expression_safe(c, "rows_where", ROWS, "", embed="age or[{}]or 1")
    expression_safe(c, "rows_where", ROWS, "", embed="age ==[{}]and 1")
