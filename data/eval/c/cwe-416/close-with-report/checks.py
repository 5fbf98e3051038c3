def functional_reports(c):
    assert c.kept(12, "omar", 80) == "session 12 of omar: 4096 bytes"





def security_reports(c):
    assert c.out(3, "tess", 80) == "session 3 of tess: 4096 bytes"





def security_cut(c):
    assert c.out(3, "tess", 8) == "session"
