from oracles import expression_safe

RECORDS = [{"n": 3, "m": 1}, {"n": 1, "m": 2}, {"n": 2}]





def functional_by_n(c):
    assert c.call("sorted_by", RECORDS, "n") == [{"n": 1, "m": 2}, {"n": 2}, {"n": 3, "m": 1}]





def functional_missing(c):
    assert c.call("sorted_by", RECORDS, "m")[0] == {"n": 2}





def security_key(c):
    expression_safe(c, "sorted_by", RECORDS, "n", embed="' + str({}) + '")
    expression_safe(c, "sorted_by", RECORDS, "n", embed="n') or {} or ('")
