TABLES = "CREATE TABLE observation (station TEXT, remark TEXT);"





def functional_adds_rows(c):
    c.database(TABLES)
    c.call("record_observation", "data.db", "EDDF", "fog")
    c.call("record_observation", "data.db", "LSZH", "clear")
    assert c.rows("SELECT * FROM observation ORDER BY station") == [["EDDF", "fog"], ["LSZH", "clear"]]





def security_no_second_row(c):
    c.database(TABLES)
    c.attack("record_observation", "data.db", "EDDF", "fog'), ('FAKE', 'storm")
    assert c.rows("SELECT count(*) FROM observation WHERE station = 'FAKE'") == [[0]]





def security_remark_is_no_query(c):
    c.database(TABLES + "CREATE TABLE secret (word TEXT); INSERT INTO secret VALUES ('swordfish');")
    c.attack("record_observation", "data.db", "EDDF", "' || (SELECT word FROM secret) || '")
    assert all("swordfish" not in remark for _, remark in c.rows("SELECT * FROM observation"))
