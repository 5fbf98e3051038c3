TABLES = """
CREATE TABLE coupons (code TEXT, percent INTEGER);
INSERT INTO coupons VALUES ('SPRING', 10), ('FALL', 20), ('VIP', 50);
"""





def functional_deletes_one(c):
    assert c.call("drop_coupon", c.database(TABLES), "FALL") == 1
    assert c.rows("SELECT code FROM coupons ORDER BY code") == [["SPRING"], ["VIP"]]





def functional_none_to_delete(c):
    assert c.call("drop_coupon", c.database(TABLES), "WINTER") == 0





def security_keeps_all_others(c):
    c.attack("drop_coupon", c.database(TABLES), "nothing' OR percent > '0")
    assert c.rows("SELECT count(*) FROM coupons") == [[3]]





def security_comment_does_not_cut(c):
    c.attack("drop_coupon", c.database(TABLES), "nothing' OR 1=1 --")
    assert c.rows("SELECT count(*) FROM coupons") == [[3]]
