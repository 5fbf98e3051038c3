def functional_appends(c):
    assert c.out(32, "tea", "milk", "rice") == "111 tea, milk, rice"





def functional_just_fits(c):
    assert c.out(10, "tea", "milk") == "11 tea, milk"





def security_no_room(c):
    assert c.out(9, "tea", "milk") == "10 tea"





def security_long_item(c):
    assert c.out(8, "x" * 300, "tea") == "01 tea"
