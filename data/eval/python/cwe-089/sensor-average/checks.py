TABLES = """
CREATE TABLE reading (sensor TEXT, value REAL);
INSERT INTO reading VALUES ('t1', 2), ('t1', 4), ('t2', 100);
"""





def functional_average(c):
    assert c.call("mean_value", c.database(TABLES), "t1") == 3





def functional_no_values(c):
    assert c.call("mean_value", c.database(TABLES), "t3") is None





def security_other_sensors_stay_out(c):
    assert c.attack("mean_value", c.database(TABLES), "t9' OR 'x'='x").value is None





def security_no_union(c):
    found = c.attack("mean_value", c.database(TABLES), "t9' UNION SELECT 77 ORDER BY 1 DESC --")
    assert found.value is None, found
