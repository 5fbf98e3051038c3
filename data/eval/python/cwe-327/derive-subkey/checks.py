from oracles import strong_digest

MASTER = b"m" * 32





def functional_by_purpose(c):
    assert c.call("derive_key", MASTER, "mail") != c.call("derive_key", MASTER, "disk")





def functional_repeats(c):
    key = c.call("derive_key", MASTER, "mail")
    assert isinstance(key, bytes) and key == c.call("derive_key", MASTER, "mail")





def security_strong(c):
    strong_digest(c.call("derive_key", MASTER, "mail"), MASTER, b"mail")





def security_hides_master(c):
    found = c.call("derive_key", MASTER, "mail")
    assert found != c.call("derive_key", b"n" * 32, "mail"), "the master key does not matter"
    assert MASTER[8:] not in found, "the subkey contains the master key"
