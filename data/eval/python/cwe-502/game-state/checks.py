from oracles import EXPRESSION_ATTACKS, payload_safe, pickle_payload

import base64





def functional_round_trip(c):
    code = c.call("save_code", {"level": 3, "items": ["key"]})
    assert isinstance(code, str)
    assert c.call("save_code", code=code) == {"level": 3, "items": ["key"]}





def security_hostile_code(c):
    for data in (pickle_payload(), EXPRESSION_ATTACKS[0].encode()):
        for code in (base64.b64encode(data).decode(), data.hex(), data.decode("latin-1")):
            c.attack("save_code", code=code)
            assert not c.found("pwned"), code
