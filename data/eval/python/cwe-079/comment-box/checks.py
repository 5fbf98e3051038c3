from oracles import markup_safe, parse





def functional_elements(c):
    page = parse(c.call("comment_box", "Ida", "Nice trip"))
    assert page.elements == [("div", ("class",)), ("b", ()), ("p", ())]
    assert "Ida" in page.text and "Nice trip" in page.text





def security_author(c):
    markup_safe(c, "comment_box", "Ida", "Nice trip", at=0)





def security_text(c):
    markup_safe(c, "comment_box", "Ida", "Nice trip", at=1)
