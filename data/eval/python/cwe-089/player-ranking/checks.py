TABLES = """
CREATE TABLE player (name TEXT, country TEXT, score INTEGER);
INSERT INTO player VALUES ('Ana', 'ES', 5), ('Luz', 'ES', 9), ('Leo', 'ES', 7), ('Max', 'DE', 8);
"""





def functional_best_first(c):
    assert c.call("top_players", c.database(TABLES), "ES", 2) == ["Luz", "Leo"]





def functional_fewer_than_limit(c):
    assert c.call("top_players", c.database(TABLES), "DE", 5) == ["Max"]





def security_limit_cannot_be_dropped(c):
    found = c.attack("top_players", c.database(TABLES), "FR' OR 1=1 --", 1)
    assert found.value in (None, []), found





def security_quote_is_data(c):
    found = c.attack("top_players", c.database(TABLES), "FR' OR country = 'DE", 3)
    assert found.value in (None, []), found





def security_limit_is_a_number(c):
    found = c.attack("top_players", c.database(TABLES), "DE", "0 UNION SELECT 'leak'")
    assert "leak" not in repr(found.value), found
