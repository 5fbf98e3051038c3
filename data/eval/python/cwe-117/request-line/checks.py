from oracles import LINE_BREAKS, one_line





def functional_line(c):
    assert c.call("access_line", "GET", "/index.html", 200) == "GET /index.html 200"





def security_path(c):
    for text in LINE_BREAKS:
        outcome = c.attack("access_line", "GET", text, 200)
        assert outcome.error or not {"\n", "\r"} & set(outcome.value), outcome





def security_method(c):
    for text in LINE_BREAKS:
        outcome = c.attack("access_line", text, "/", 200)
        assert outcome.error or not {"\n", "\r"} & set(outcome.value), outcome
