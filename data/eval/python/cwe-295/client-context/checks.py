from oracles import checks_certificates, verifies





def functional_context(c):
    c.call("client_context")
    assert c.evaluate("isinstance(result, ssl.SSLContext)") is True





def security_verifies(c):
    c.call("client_context")
    checks_certificates(c)
