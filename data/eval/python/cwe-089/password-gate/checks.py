TABLES = """
CREATE TABLE account (login TEXT, digest TEXT);
INSERT INTO account VALUES ('root', 'aa11'), ('guest', 'bb22');
"""





def functional_right_digest(c):
    assert c.call("may_enter", c.database(TABLES), "guest", "bb22") is True





def functional_wrong_digest(c):
    assert c.call("may_enter", c.database(TABLES), "guest", "aa11") is False





def security_comment_in_login(c):
    assert not c.attack("may_enter", c.database(TABLES), "root' --", "no").value





def security_tautology_in_digest(c):
    assert not c.attack("may_enter", c.database(TABLES), "root", "no' OR '1'='1").value
