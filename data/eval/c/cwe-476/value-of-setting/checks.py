def functional_value(c):
    assert c.out("port=80") == "[80]" and c.out("name=  Otto = me") == "[Otto = me]"





def functional_empty_value(c):
    assert c.out("port=") == "[]"





def security_no_sign(c):
    assert c.out("port 80") == "[NULL]"





def security_empty_line(c):
    assert c.out("") == "[NULL]"
