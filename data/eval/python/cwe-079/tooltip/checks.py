from oracles import markup_safe, parse





def functional_span(c):
    page = parse(c.call("with_tooltip", "Total", "all items"))
    assert page.elements == [("span", ("title",))] and page.values == ["all items"] and page.text == "Total"





def security_hint(c):
    markup_safe(c, "with_tooltip", "Total", "hint", at=1)





def security_label(c):
    markup_safe(c, "with_tooltip", "Total", "hint", at=0)
