TABLES = """
CREATE TABLE movies (title TEXT, year INTEGER);
INSERT INTO movies VALUES ('The Red Door', 1950), ('Red Sun', 1971), ('Blue', 1993);
CREATE TABLE staff (name TEXT, pin INTEGER);
INSERT INTO staff VALUES ('Ada', 9911);
"""





def functional_finds_by_words(c):
    assert sorted(c.call("search_movies", c.database(TABLES), "Red")) == [["Red Sun", 1971], ["The Red Door", 1950]]





def functional_finds_nothing(c):
    assert c.call("search_movies", c.database(TABLES), "Green") == []





def security_no_union(c):
    found = c.attack("search_movies", c.database(TABLES), "zzz' UNION SELECT name, pin FROM staff --")
    assert "9911" not in repr(found), found





def security_always_true(c):
    found = c.attack("search_movies", c.database(TABLES), "zzz' OR 'a' LIKE '")
    assert found.value in (None, []), found
