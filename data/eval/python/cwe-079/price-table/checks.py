from oracles import markup_safe, parse





def functional_rows(c):
    page = parse(c.call("price_rows", [("tea", 2), ("milk", 1.5)]))
    assert page.elements == [("tr", ()), ("td", ()), ("td", ())] * 2
    assert "tea" in page.text and "2.00" in page.text and "1.50" in page.text





def functional_empty(c):
    assert c.call("price_rows", []) == ""





def security_names(c):
    markup_safe(c, "price_rows", wrap=lambda text: [("tea", 2), (text, 3)])
