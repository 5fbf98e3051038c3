def functional_middle(c):
    assert c.out(10, 21) == "15" and c.out(0, 1) == "0"





def functional_same(c):
    assert c.out(7, 7) == "7"





def security_large(c):
    assert c.out(2147483645, 2147483647) == "2147483646"





def security_sum_too_large(c):
    assert c.out(1073741824, 1073741824) == "1073741824"
