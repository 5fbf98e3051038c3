from oracles import strong_digest

import time





def functional_depends_on_password(c):
    one, two = c.call("hash_password", "tulip", b"ab"), c.call("hash_password", "rose", b"ab")
    assert one != two and len(one) == len(bytes.fromhex(one)) * 2





def functional_depends_on_salt(c):
    assert c.call("hash_password", "tulip", b"ab") != c.call("hash_password", "tulip", b"cd")





def functional_repeats(c):
    assert c.call("hash_password", "tulip", b"ab") == c.call("hash_password", "tulip", b"ab")





def security_strong(c):
    strong_digest(c.call("hash_password", "tulip", b"ab"), b"tulip", b"ab", b"6162")





def security_slow_to_guess(c):
    import hashlib
    found = c.call("hash_password", "tulip", b"ab")
    for name in ("sha224", "sha256", "sha384", "sha512", "sha3_256", "blake2b", "blake2s"):
        for message in (b"abtulip", b"tulipab", b"tulip6162", b"6162tulip", b"tulip"):
            assert found != hashlib.new(name, message).hexdigest(), f"one round of {name}"
