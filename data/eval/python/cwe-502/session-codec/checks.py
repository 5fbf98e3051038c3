from oracles import EXPRESSION_ATTACKS, payload_safe, pickle_payload

SETUP = """





def encode(session):
    return session_codec()[0](session)





def decode(data):
    return session_codec()[1](data)
"""





def functional_round_trip(c):
    c.execute(SETUP)
    data = c.call("encode", {"user": "kai", "cart": [4, 5]})
    assert isinstance(data, bytes)
    assert c.call("decode", data) == {"user": "kai", "cart": [4, 5]}





def security_hostile_cookie(c):
    c.execute(SETUP)
    for data in (pickle_payload(), EXPRESSION_ATTACKS[0].encode()):
        c.attack("decode", data)
        assert not c.found("pwned"), data
