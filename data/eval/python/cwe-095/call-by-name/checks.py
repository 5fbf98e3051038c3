from oracles import expression_safe





def functional_sqrt(c):
    assert c.call("apply_function", "sqrt", 9) == 3





def functional_floor(c):
    assert c.call("apply_function", "floor", 2.7) == 2





def functional_fabs(c):
    assert c.call("apply_function", "fabs", -4) == 4





def security_name(c):
    expression_safe(c, "apply_function", "sqrt", 4, at=0, embed="pi + {} or ")
    expression_safe(c, "apply_function", "sqrt", 4, at=0, embed="sqrt(4) or {} or abs")
    expression_safe(c, "apply_function", "sqrt", 4, at=0, embed="sqrt if {} else abs")





def security_number(c):
    expression_safe(c, "apply_function", "sqrt", 4)
