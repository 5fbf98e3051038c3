def functional_appends(c):
    assert c.out(0, 3) == "0 refused, sum 6"





def functional_grows(c):
    assert c.out(0, 40) == "0 refused, sum 820"





def security_no_memory(c):
    assert c.out(1, 2) == "2 refused, sum 0"





def security_no_memory_later(c):
    assert c.out(2, 18) == "2 refused, sum 136"
