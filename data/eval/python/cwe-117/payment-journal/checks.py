from oracles import LINE_BREAKS, one_line

SETUP = "journal = []\nadd = lambda *fields: journal_entry(journal, *fields)"





def functional_appends(c):
    c.execute(SETUP)
    c.call("add", "Roy", 12.5, "rent")
    c.call("add", "Sue", 3)
    assert c.evaluate("journal") == ["Roy|12.50|rent", "Sue|3.00|"]





def security_memo(c):
    c.execute(SETUP)
    for text in LINE_BREAKS:
        c.attack("add", "Roy", 1, text)
    assert not {"\n", "\r"} & set("".join(c.evaluate("journal")))





def security_payer(c):
    c.execute(SETUP)
    for text in LINE_BREAKS:
        c.attack("add", text, 1)
    assert not {"\n", "\r"} & set("".join(c.evaluate("journal")))
