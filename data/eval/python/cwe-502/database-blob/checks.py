from oracles import EXPRESSION_ATTACKS, payload_safe, pickle_payload

TABLES = "CREATE TABLE baskets (user TEXT PRIMARY KEY, data BLOB);"





def functional_adds(c):
    db = c.database(TABLES)
    assert c.call("basket", db, "jo", "pen") == ["pen"]
    assert c.call("basket", db, "jo", "ink") == ["pen", "ink"]
    assert c.call("basket", db, "jo") == ["pen", "ink"]





def functional_nothing_kept(c):
    assert c.call("basket", c.database(TABLES), "al") == []





def security_planted_row(c):
    for data in (pickle_payload(), EXPRESSION_ATTACKS[0].encode()):
        db = c.database("DROP TABLE IF EXISTS baskets;" + TABLES + f"INSERT INTO baskets VALUES ('jo', x'{data.hex()}')")
        c.attack("basket", db, "jo", "pen")
        assert not c.found("pwned")
