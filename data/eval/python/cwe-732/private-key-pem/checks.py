from oracles import private





def functional_saves(c):
    c.write("keys/readme", "")
    assert c.call("save_key", "keys", "site", "PEM") == "keys/site.pem"
    assert c.read("keys/site.pem") == "PEM" and c.mode("keys/site.pem") & 0o400





def security_only_owner(c):
    c.write("keys/readme", "")
    c.call("save_key", "keys", "site", "PEM")
    private(c, "keys/site.pem")
