def functional_zeros(c):
    assert c.out(20, 30) == "0"





def functional_single(c):
    assert c.out(1, 1) == "0"





def security_product_wraps_to_nothing(c):
    assert c.out("0x100000000", "0x100000000") == "NULL"





def security_bytes_wrap(c):
    assert c.out("0x2000000000000002", "1") == "NULL"
