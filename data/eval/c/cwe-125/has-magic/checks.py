def functional_has(c):
    assert c.out("PNG data", "PNG") == "yes" and c.out("PNG", "PNG") == "yes"





def functional_has_not(c):
    assert c.out("GIF data", "PNG") == "no"





def security_shorter_file(c):
    assert c.out("RIFF", "RIFFWAVE") == "no"





def security_empty_file(c):
    assert c.out("", "RIFF") == "no"
