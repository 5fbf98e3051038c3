def functional_counts(c):
    assert c.kept(3) == "4" and c.kept(1) == "1"





def functional_no_tree(c):
    assert c.kept(0) == "0"





def security_one_branch(c):
    assert c.out(1) == "1"





def security_tree(c):
    assert c.out(4) == "5"
