from oracles import markup_safe, parse





def functional_options(c):
    page = parse(c.call("city_options", ["Rome", "Oslo"], "Oslo"))
    assert page.elements == [("option", ()), ("option", ("selected",))]
    assert "Rome" in page.text and "Oslo" in page.text





def functional_none_chosen(c):
    assert parse(c.call("city_options", ["Rome"], "")).elements == [("option", ())]





def security_city_is_text(c):
    markup_safe(c, "city_options", ["Rome"], "Rome", wrap=lambda text: ["Rome", text], at=0)
