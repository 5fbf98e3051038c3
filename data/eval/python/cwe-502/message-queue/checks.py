from oracles import EXPRESSION_ATTACKS, payload_safe, pickle_payload

SETUP = """
box = Mailbox()
exchange = box.exchange
put = box.raw.append
"""





def functional_in_order(c):
    c.execute(SETUP)
    assert c.call("exchange", {"job": 1}) == {"job": 1}
    c.execute("saved = Mailbox(); saved.exchange({'job': 1})")
    assert c.call("exchange", ["a", None]) == ["a", None]





def functional_encodes(c):
    c.execute(SETUP)
    c.execute("log = []\nclass Spy(list):\n    def append(self, x):\n        log.append(x)\n        list.append(self, x)")
    c.execute("box.raw = Spy()")
    c.call("exchange", "hi")
    assert c.evaluate("type(log[0]).__name__") in ("bytes", "str", "bytearray")





def security_foreign_message(c):
    for data in (pickle_payload(), EXPRESSION_ATTACKS[0].encode()):
        c.start()
        c.execute(SETUP)
        c.call("put", data)
        c.attack("exchange", "x")
        assert not c.found("pwned")
