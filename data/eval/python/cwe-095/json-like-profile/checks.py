from oracles import expression_safe





def functional_object(c):
    assert c.call("load_profile", '{"name": "Uma", "admin": false, "tags": [1, null]}') == {
        "name": "Uma", "admin": False, "tags": [1, None],
    }





def functional_empty(c):
    assert c.call("load_profile", "  ") == {}





def security_body(c):
    expression_safe(c, "load_profile")





def security_value(c):
    expression_safe(c, "load_profile", embed='{{"name": {}}}')
