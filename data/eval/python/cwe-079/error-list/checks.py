from oracles import markup_safe, parse





def functional_items(c):
    page = parse(c.call("error_list", {"age": "too small", "name": "missing"}))
    assert page.elements == [("ul", ("class",)), ("li", ()), ("li", ())]
    assert "age: too small" in page.text





def functional_empty(c):
    assert c.call("error_list", {}) == ""





def security_messages(c):
    markup_safe(c, "error_list", wrap=lambda text: {"age": text})





def security_fields(c):
    markup_safe(c, "error_list", wrap=lambda text: {text: "unknown field"})
