TABLES = """
CREATE TABLE photo_tag (photo TEXT, tag TEXT);
INSERT INTO photo_tag VALUES ('b.jpg', 'sea'), ('a.jpg', 'sea'), ('a.jpg', 'sun'), ('x.jpg', 'private');
"""





def functional_any_tag(c):
    assert c.call("photos_with_any_tag", c.database(TABLES), ["sea", "sun"]) == ["a.jpg", "b.jpg"]





def functional_no_tags(c):
    assert c.call("photos_with_any_tag", c.database(TABLES), []) == []





def security_list_not_left(c):
    found = c.attack("photos_with_any_tag", c.database(TABLES), ["sun", "x') OR ('1'='1"])
    assert "x.jpg" not in repr(found), found





def security_single_hostile_tag(c):
    found = c.attack("photos_with_any_tag", c.database(TABLES), ["none') --"])
    assert found.value in (None, []), found
