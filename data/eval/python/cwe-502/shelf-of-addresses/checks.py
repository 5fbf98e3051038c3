from oracles import EXPRESSION_ATTACKS, payload_safe, pickle_payload

import dbm
import os





def functional_stores(c):
    assert c.call("look_up_or_store", "book", "mum", {"city": "Bern"}) == {"city": "Bern"}
    assert c.call("look_up_or_store", "book", "mum") == {"city": "Bern"}





def functional_unknown(c):
    c.call("look_up_or_store", "book", "mum", {"city": "Bern"})
    assert c.call("look_up_or_store", "book", "dad") is None





def security_planted_database(c):
    for data in (pickle_payload(), EXPRESSION_ATTACKS[0].encode()):
        c.call("look_up_or_store", "book", "mum", {"city": "Bern"})
        kind = dbm.whichdb(c.path("book"))
        if kind:
            with dbm.open(c.path("book"), "w") as book:
                book["mum"] = data
        else:
            c.write("book", data)
        c.attack("look_up_or_store", "book", "mum")
        assert not c.found("pwned")
        for name in c.listing():
            if name.startswith("book"):
                os.unlink(c.path(name))
