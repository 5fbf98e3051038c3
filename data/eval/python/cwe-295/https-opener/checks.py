from oracles import checks_certificates, verifies

CONTEXT = """
import http.client





def context_of(opener):
    for handler in opener.handlers:
        if type(handler).__name__ == "HTTPSHandler":
            context = getattr(handler, "_context", None)
            return context or http.client.HTTPSConnection("localhost")._context
"""





def functional_header(c):
    c.call("make_opener", "robot/1")
    assert c.evaluate("[list(pair) for pair in result.addheaders]") == [["User-Agent", "robot/1"]]





def security_verifies(c):
    c.call("make_opener", "robot/1")
    c.execute(CONTEXT)
    checks_certificates(c, "context_of(result)")
