from oracles import EXPRESSION_ATTACKS, payload_safe, pickle_payload

import zlib





def functional_round_trip(c):
    data = c.call("pack_or_unpack", ["buy milk", "call Jan"] * 40)
    assert isinstance(data, bytes) and len(data) < 300
    assert c.call("pack_or_unpack", data) == ["buy milk", "call Jan"] * 40





def security_hostile_bytes(c):
    for data in (pickle_payload(), EXPRESSION_ATTACKS[0].encode()):
        for hostile in (data, zlib.compress(data)):
            c.attack("pack_or_unpack", hostile)
            assert not c.found("pwned")
