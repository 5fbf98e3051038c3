def functional_saves(c):
    assert c.out("a.ini", "k", "v", "size", "10") == "0"
    assert c.read("a.ini") == "k=v\nsize=10\n"





def functional_no_folder(c):
    assert c.out("none/a.ini", "k", "v") == "-1"





def security_values_are_text(c):
    c.out("a.ini", "scale", "50%% %d")
    assert c.read("a.ini") == "scale=50%% %d\n"





def security_keys_are_text(c):
    c.out("a.ini", "%x", "1")
    assert c.read("a.ini") == "%x=1\n"
