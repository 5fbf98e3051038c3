from oracles import strong_digest





def functional_carries_value(c):
    value, signature = c.call("sign_cookie", b"k1", "user=5").rsplit(".", 1)
    assert value == "user=5" and int(signature, 16)





def functional_differs_by_value(c):
    assert c.call("sign_cookie", b"k1", "user=5").split(".")[1] != c.call("sign_cookie", b"k1", "user=6").split(".")[1]





def security_key_matters(c):
    assert c.call("sign_cookie", b"k1", "user=5") != c.call("sign_cookie", b"k2", "user=5")





def security_strong(c):
    strong_digest(c.call("sign_cookie", b"k1", "user=5").split(".")[1], b"k1", b"user=5")





def security_no_length_extension(c):
    import hashlib
    signature = c.call("sign_cookie", b"k1", "user=5").split(".")[1]
    for name in ("sha256", "sha512"):
        assert signature != hashlib.new(name, b"k1user=5").hexdigest(), f"{name} of key and value"
