TABLES = """
CREATE TABLE chapter (number INTEGER, name TEXT, pages INTEGER);
INSERT INTO chapter VALUES (1, 'Start', 9), (2, 'Middle', 30), (3, 'End', 4);
CREATE TABLE owner (rank INTEGER);
INSERT INTO owner VALUES (1);
"""
ORDER = "(CASE (SELECT rank FROM owner) WHEN 1 THEN name ELSE number END)"





def functional_by_name(c):
    assert c.call("chapters_sorted_by", c.database(TABLES), "name") == ["End", "Middle", "Start"]





def functional_by_pages(c):
    assert c.call("chapters_sorted_by", c.database(TABLES), "pages") == ["End", "Start", "Middle"]





def security_order_is_no_oracle(c):
    first = c.attack("chapters_sorted_by", c.database(TABLES), ORDER)
    c.database("UPDATE owner SET rank = 2")
    second = c.attack("chapters_sorted_by", {"$database": "data.db"}, ORDER)
    assert first.value == second.value, "the order tells what is in another table"





def security_no_union(c):
    found = c.attack("chapters_sorted_by", c.database(TABLES), "1 LIMIT 0, (SELECT rank FROM owner)")
    assert found.value != [], found
