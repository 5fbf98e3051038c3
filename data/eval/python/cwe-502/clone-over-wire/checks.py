from oracles import EXPRESSION_ATTACKS, payload_safe, pickle_payload





def channel(c, sent, reply=None):
    send = c.callback(lambda data: sent.append(data))
    receive = c.callback(lambda: reply if reply is not None else sent[-1])
    return {"$object": {"send": send, "receive": receive}}





def functional_echo(c):
    sent = []
    assert c.call("send_and_receive", channel(c, sent), {"id": 7, "ok": True}) == {"id": 7, "ok": True}
    assert len(sent) == 1 and isinstance(sent[0], bytes)





def security_hostile_peer(c):
    for data in (pickle_payload(), EXPRESSION_ATTACKS[0].encode()):
        c.attack("send_and_receive", channel(c, [], data), {})
        assert not c.found("pwned")
