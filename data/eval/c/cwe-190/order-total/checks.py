def functional_product(c):
    assert c.out(3, 250) == "750" and c.out(0, 250) == "0"





def functional_free(c):
    assert c.out(3, 0) == "0"





def functional_largest(c):
    assert c.out(1, 2147483647) == "2147483647"





def security_too_large(c):
    assert c.out(2, 1073741824) == "-1"





def security_wraps_to_positive(c):
    assert c.out(65536, 65537) == "-1" and c.out(2147483647, 2147483647) == "-1"
