from oracles import markup_safe, parse





def functional_paragraphs(c):
    page = parse(c.call("transcript", [{"time": "10:15", "text": "hi"}, {"time": "10:16", "text": "oh"}]))
    assert page.elements == [("p", ()), ("i", ())] * 2 and "10:16" in page.text





def functional_line_breaks(c):
    page = parse(c.call("transcript", [{"time": "10:15", "text": "one\ntwo"}]))
    assert [tag for tag, _ in page.elements] == ["p", "i", "br"]





def security_text(c):
    markup_safe(c, "transcript", wrap=lambda text: [{"time": "10:15", "text": text}])
