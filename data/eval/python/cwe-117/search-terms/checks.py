from oracles import LINE_BREAKS, one_line

SETUP = """
import logging
logging.basicConfig(filename="search.log", level=logging.DEBUG, format="%(levelname)s:%(message)s")
"""





def functional_logs(c):
    c.execute(SETUP)
    c.call("note_search", "tents", 12)
    assert c.lines("search.log") == ['INFO:search "tents" gave 12 hits']





def functional_no_hits(c):
    c.execute(SETUP)
    c.call("note_search", "", 0)
    assert c.lines("search.log") == ['INFO:search "" gave 0 hits']





def security_query(c):
    c.execute(SETUP)
    one_line(c, "search.log", lambda text: c.attack("note_search", text, 1))
