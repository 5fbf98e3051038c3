def functional_repeats(c):
    assert c.out(3, 4) == "b" * 12





def functional_once(c):
    assert c.out(5, 1) == "b" * 5





def security_product_wraps(c):
    assert c.out("0x10000", "0x10001") == "NULL"





def security_product_wraps_to_little(c):
    assert c.out("0x8000", "0x20001") == "NULL"
