def functional_title(c):
    assert c.out("News") == "News\n----"





def security_conversions_are_text(c):
    assert c.out("%4d%%") == "%4d%%\n-----"





def security_pointer(c):
    assert c.out("%p %x") == "%p %x\n-----"
