from oracles import checks_certificates, verifies





def functional_connection(c):
    c.call("api_connection", "api.test")
    assert c.evaluate("(type(result).__name__, result.host, result.debuglevel)") == ["HTTPSConnection", "api.test", 0]





def functional_debug(c):
    c.call("api_connection", "api.test", True)
    assert c.evaluate("result.debuglevel") == 1





def security_verifies(c):
    c.call("api_connection", "api.test")
    checks_certificates(c, "result._context")





def security_verifies_with_debug(c):
    c.call("api_connection", "api.test", True)
    checks_certificates(c, "result._context")
