from oracles import LINE_BREAKS, one_line





def functional_prints(c):
    c.call("show_upload", "cat.png", 512)
    assert c.stdout() == "received cat.png (512 bytes)\n"





def security_filename(c):
    for text in LINE_BREAKS:
        c.start()
        c.attack("show_upload", text, 1)
        assert len(c.stdout().replace("\r", "\n").rstrip("\n").split("\n")) <= 1, repr(c.stdout())
