from oracles import checks_certificates, verifies





def functional_options(c):
    options = c.call("tls_options", "db.test")
    assert (options["host"], options["port"]) == ("db.test", 443) and "verify" in options
    assert "ca_file" not in options





def functional_ca_file(c):
    options = c.call("tls_options", "db.test", 5432, "ca.pem")
    assert (options["port"], options["ca_file"]) == (5432, "ca.pem")





def security_verifies(c):
    assert c.call("tls_options", "db.test")["verify"] is True





def security_verifies_with_ca(c):
    assert c.call("tls_options", "db.test", 443, "ca.pem")["verify"] is True
