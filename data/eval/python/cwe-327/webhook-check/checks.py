from oracles import strong_digest

import hashlib
import hmac





def functional_prefix(c):
    found = c.call("webhook_signature", "k", "{}")
    assert found.startswith("v1=") and int(found[3:], 16)
    assert c.call("webhook_signature", "k", "{}", "x:").startswith("x:")





def functional_depends_on_both(c):
    found = c.call("webhook_signature", "k", "{}")
    assert found != c.call("webhook_signature", "k", "[]") and found != c.call("webhook_signature", "l", "{}")





def security_strong(c):
    found = c.call("webhook_signature", "k", "{}")[3:]
    strong_digest(found, b"k", b"{}")
    for name in ("md5", "sha1"):
        assert found != hmac.new(b"k", b"{}", name).hexdigest(), f"HMAC with {name}"
