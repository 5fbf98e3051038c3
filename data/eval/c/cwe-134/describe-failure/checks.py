def functional_describes(c):
    assert c.out("a.txt", "too large", 0) == "a.txt: too large"
    assert c.out("a.txt", "too large", 5) == "a.txt: too large (code 5)"





def security_path_is_text(c):
    assert c.out("100%% %x.txt", "gone", 2) == "100%% %x.txt: gone (code 2)"





def security_reason_is_text(c):
    assert c.out("a", "%d of %d", 0) == "a: %d of %d"
