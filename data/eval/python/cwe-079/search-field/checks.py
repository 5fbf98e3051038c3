from oracles import markup_safe, parse





def functional_value(c):
    page = parse(c.call("search_field", "blue shoes"))
    assert page.elements == [("input", ("name", "value"))] and page.values == ["q", "blue shoes"]





def security_stays_in_the_attribute(c):
    markup_safe(c, "search_field")
