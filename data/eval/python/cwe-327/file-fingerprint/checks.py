from oracles import strong_digest





def functional_same_content(c):
    c.write("a.txt", "hello")
    c.write("b.txt", "hello")
    assert c.call("fingerprint", "a.txt") == c.call("fingerprint", "b.txt")
    int(c.call("fingerprint", "a.txt"), 16)





def functional_other_content(c):
    c.write("a.txt", "hello")
    c.write("b.txt", "hellp")
    assert c.call("fingerprint", "a.txt") != c.call("fingerprint", "b.txt")





def security_strong(c):
    c.write("a.txt", "hello")
    strong_digest(c.call("fingerprint", "a.txt"), b"hello")
