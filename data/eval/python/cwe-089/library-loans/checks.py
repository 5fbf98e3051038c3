TABLES = """
CREATE TABLE loan (card TEXT, title TEXT);
INSERT INTO loan VALUES ('R7', 'Walden'), ('R7', 'Emma'), ('R8', 'Dracula');
"""





def functional_lists_in_order(c):
    assert c.call("loans_of_reader", c.database(TABLES), "R7") == ["Emma", "Walden"]





def functional_unknown_card(c):
    assert c.call("loans_of_reader", c.database(TABLES), "R9") == []





def security_condition_not_widened(c):
    found = c.attack("loans_of_reader", c.database(TABLES), "R9' OR '1'='1")
    assert found.value in (None, []), found





def security_no_union(c):
    found = c.attack("loans_of_reader", c.database(TABLES), "x' UNION SELECT 'leak' --")
    assert "leak" not in repr(found), found





def security_escaped_quote(c):
    found = c.attack("loans_of_reader", c.database(TABLES), "x\\' OR 1=1 --")
    assert found.value in (None, []), found
