TABLES = """
CREATE TABLE subscriber (email TEXT, newsletter INTEGER);
INSERT INTO subscriber VALUES ('a@site.test', 1), ('b@site.test', 1);
"""





def functional_switches_off(c):
    assert c.call("set_newsletter", c.database(TABLES), "b@site.test", False) is True
    assert c.rows("SELECT newsletter FROM subscriber ORDER BY email") == [[1], [0]]





def functional_unknown_subscriber(c):
    assert c.call("set_newsletter", c.database(TABLES), "c@site.test", False) is False





def security_single_quotes(c):
    c.attack("set_newsletter", c.database(TABLES), "x' OR newsletter = '1", False)
    c.attack("set_newsletter", {"$database": "data.db"}, "x' OR 1=1 --", False)
    assert c.rows("SELECT sum(newsletter) FROM subscriber") == [[2]]





def security_double_quotes(c):
    c.attack("set_newsletter", c.database(TABLES), 'x" OR 1=1 --', False)
    assert c.rows("SELECT sum(newsletter) FROM subscriber") == [[2]]
