def functional_prefix(c):
    assert c.kept("img_7.png", "img_") == "7.png"





def functional_no_prefix(c):
    assert c.kept("www.site", "ftp.") == "www.site"





def security_prefix(c):
    assert c.out("www.site", "www.") == "site"





def security_result_can_be_freed(c):
    assert c.out("www.site", "www.", "free") == "site"
