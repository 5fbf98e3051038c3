from oracles import LINE_BREAKS, one_line





def functional_line(c):
    assert c.call("describe_failure", "backup", ["no disk", "no tape"]) == "backup failed: no disk; no tape"





def functional_no_reasons(c):
    assert c.call("describe_failure", "backup", []).strip() == "backup failed:"





def security_reasons(c):
    for text in LINE_BREAKS:
        outcome = c.attack("describe_failure", "backup", ["a", text])
        assert outcome.error or not {"\n", "\r"} & set(outcome.value), outcome





def security_task(c):
    for text in LINE_BREAKS:
        outcome = c.attack("describe_failure", text, ["a"])
        assert outcome.error or not {"\n", "\r"} & set(outcome.value), outcome
