from oracles import unpredictable

import base64





def functional_copy(c):
    headers = c.call("with_nonce", {"Accept": "*/*"})
    assert headers["Accept"] == "*/*" and len(base64.b64decode(headers["X-Nonce"])) == 16
    assert sorted(headers) == ["Accept", "X-Nonce"]





def security_unpredictable(c):
    unpredictable(c, "with_nonce", {})
