TABLES = """
CREATE TABLE ledger (month TEXT, amount INTEGER);
CREATE TABLE archive (month TEXT, amount INTEGER);
INSERT INTO ledger VALUES ('2024-05', 10), ('2024-06', 20);
"""





def functional_moves_one_month(c):
    c.call("close_month", c.database(TABLES), "2024-05")
    assert c.rows("SELECT * FROM ledger") == [["2024-06", 20]]
    assert c.rows("SELECT * FROM archive") == [["2024-05", 10]]





def security_no_second_statement(c):
    c.attack("close_month", c.database(TABLES), "x'; UPDATE ledger SET amount = 0; --")
    assert c.rows("SELECT sum(amount) FROM ledger") == [[30]]





def security_condition_not_widened(c):
    c.attack("close_month", c.database(TABLES), "x' OR 'a'='a")
    assert c.rows("SELECT count(*) FROM ledger") == [[2]]
