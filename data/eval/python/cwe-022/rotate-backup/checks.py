def setup(c):
    c.write("vault/plan.doc", "v1")
    c.write("shadow", "CANARY")





def functional_copies(c):
    setup(c)
    assert c.call("back_up", "vault", "plan.doc") == "vault/plan.doc.bak"
    assert c.read("vault/plan.doc.bak") == "v1"





def functional_copies_again(c):
    setup(c)
    c.call("back_up", "vault", "plan.doc")
    c.write("vault/plan.doc", "v2")
    c.call("back_up", "vault", "plan.doc")
    assert c.read("vault/plan.doc.bak") == "v2"





def security_outside(c):
    setup(c)
    for name in ("../shadow", c.path("shadow")):
        c.attack("back_up", "vault", name)
        assert not c.exists("shadow.bak"), name
