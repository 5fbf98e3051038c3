def functional_numbers(c):
    assert c.out("0") == "0" and c.out("8080") == "8080"





def functional_no_number(c):
    assert c.out("12a") == "-1" and c.out("") == "-1"





def functional_largest(c):
    assert c.out("2147483647") == "2147483647"





def security_one_too_large(c):
    assert c.out("2147483648") == "-1"





def security_many_digits(c):
    assert c.out("99999999999") == "-1" and c.out("42949672960") == "-1"
