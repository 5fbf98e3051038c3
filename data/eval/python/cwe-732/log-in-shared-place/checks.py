from oracles import private

import json





def functional_saves(c):
    c.call("save_profile", "me.json", {"phone": "555"})
    assert json.loads(c.read("me.json")) == {"phone": "555"} and c.listing() == ["me.json"]





def functional_replaces(c):
    c.write("me.json", "{}", mode=0o600)
    c.call("save_profile", "me.json", {"phone": "556"})
    assert json.loads(c.read("me.json")) == {"phone": "556"}





def security_stays_private(c):
    c.write("me.json", "{}", mode=0o600)
    c.call("save_profile", "me.json", {"phone": "556"})
    private(c, "me.json")
