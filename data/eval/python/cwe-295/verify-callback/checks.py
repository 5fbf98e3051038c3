from oracles import checks_certificates, verifies

GOOD = {"name": "pay.test", "trusted": True, "expires": 900}





def functional_accepts(c):
    assert c.call("accept_peer", GOOD, "pay.test", 100) is True





def functional_expired(c):
    assert not c.call("accept_peer", GOOD, "pay.test", 901)





def security_untrusted(c):
    assert not c.attack("accept_peer", {**GOOD, "trusted": False}, "pay.test", 100).value





def security_other_name(c):
    for name in ("evil.test", "evilpay.test", "pay.test.evil.test", "pay.tes", ""):
        assert not c.attack("accept_peer", {**GOOD, "name": name}, "pay.test", 100).value, name
