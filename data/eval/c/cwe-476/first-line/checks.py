def functional_reads(c):
    c.write("motd", "hello there\nmore\n")
    assert c.out("motd") == "11 hello there"





def functional_empty(c):
    c.write("motd", "")
    assert c.out("motd") == "-1 "





def security_missing(c):
    assert c.out("missing") == "-1 "
