from oracles import SHELL_ATTACKS, shell_safe





def functional_default_size(c):
    c.write("logo.png", b"\x89PNG\r\n")
    assert c.call("file_header", "logo.png") == b"\x89PNG"





def functional_other_size(c):
    c.write("logo.png", b"\x89PNG\r\n")
    assert c.call("file_header", "logo.png", 2) == b"\x89P"





def security_path(c):
    c.write("logo.png", b"\x89PNG\r\n")
    shell_safe(c, "file_header", "logo.png", 4, at=0)





def security_size(c):
    c.write("logo.png", b"\x89PNG\r\n")
    shell_safe(c, "file_header", "logo.png", "4")
