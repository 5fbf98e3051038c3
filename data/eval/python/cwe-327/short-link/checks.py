from oracles import strong_digest

import re





def functional_alphabet(c):
    assert re.fullmatch(r"[A-Za-z0-9_-]+", c.call("content_address", "hello"))





def functional_differs(c):
    assert c.call("content_address", "hello") != c.call("content_address", "Hello")





def security_strong(c):
    import base64
    text = c.call("content_address", "hello")
    strong_digest(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), b"hello")
