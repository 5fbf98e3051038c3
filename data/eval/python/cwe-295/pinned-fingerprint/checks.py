from oracles import checks_certificates, verifies

import hashlib

PIN = hashlib.sha256(b"cert").hexdigest()





def functional_pinned(c):
    assert c.call("is_pinned", b"cert", ["00" * 32, PIN]) is True
    assert c.call("is_pinned", b"cert", [PIN.upper()]) is True





def functional_other(c):
    assert c.call("is_pinned", b"other", [PIN]) is False





def security_no_pins(c):
    assert not c.attack("is_pinned", b"cert", []).value





def security_part_is_not_enough(c):
    for pin in ("", PIN[:1], PIN[:8], PIN[-8:], PIN[8:20]):
        assert not c.attack("is_pinned", b"cert", [pin]).value, pin
