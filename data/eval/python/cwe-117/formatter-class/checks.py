from oracles import LINE_BREAKS, one_line

SETUP = """
import logging





def show(text):
    record = logging.LogRecord("x", logging.ERROR, "f.py", 1, "got %s", (text,), None)
    return PlainFormatter().format(record)
"""





def functional_format(c):
    c.execute(SETUP)
    assert c.call("show", "42 apples") == "ERROR\tgot 42 apples"





def security_message(c):
    c.execute(SETUP)
    for text in LINE_BREAKS:
        outcome = c.attack("show", text)
        assert outcome.error or not {"\n", "\r"} & set(outcome.value), outcome
