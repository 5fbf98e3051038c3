from oracles import SHELL_ATTACKS, shell_safe





def functional_moves(c):
    c.write("public/keep.txt", "")
    c.write("draft-1", "news")
    c.call("publish", "draft-1", "spring")
    assert c.read("public/spring.txt") == "news" and not c.exists("draft-1")





def functional_title_with_space(c):
    c.write("public/keep.txt", "")
    c.write("draft-1", "news")
    c.call("publish", "draft-1", "late summer")
    assert c.read("public/late summer.txt") == "news"





def security_title(c):
    c.write("public/keep.txt", "")
    c.write("draft-1", "news")
    shell_safe(c, "publish", "draft-1", "title", attacks=['$(mkdir pwned)', '`mkdir pwned`', 'a"; mkdir pwned; "'])





def security_draft(c):
    c.write("public/keep.txt", "")
    shell_safe(c, "publish", "draft-1", "title", at=0)
