from oracles import markup_safe, parse





def functional_link(c):
    page = parse(c.call("profile_link", "otter7"))
    assert page.elements == [("a", ("href",))] and page.values == ["/members/otter7"]
    assert page.text == "otter7"





def security_one_link(c):
    markup_safe(c, "profile_link")
