from oracles import markup_safe, parse





def functional_names_the_path(c):
    page = parse(c.call("not_found", "/maps/7").decode())
    assert [tag for tag, _ in page.elements][:2] == ["h1", "p"] and "/maps/7" in page.text





def security_path_is_text(c):
    expected = parse(c.call("not_found", "/x").decode()).elements
    for path in ("/<script>alert(1)</script>", "/<img src=x onerror=alert(1)>"):
        outcome = c.attack("not_found", path)
        assert outcome.error or parse(outcome.value.decode()).elements == expected, outcome
