def functional_whole(c):
    assert c.out(4, "Ruth") == "4 Ruth"





def functional_more_follows(c):
    assert c.out(4, "Ruth and more") == "4 Ruth"





def functional_empty_name(c):
    assert c.out(0, "") == "0 "





def security_one_more_than_there_is(c):
    assert c.out(5, "Ruth") == "-1 "





def security_far_more(c):
    assert c.out(255, "Ruth") == "-1 "
