from oracles import private





def functional_tree(c):
    c.write("home/readme", "")
    c.call("make_home", "home", "noa")
    assert c.listing("home/noa") == [".ssh", "inbox"]





def security_home(c):
    c.write("home/readme", "")
    c.call("make_home", "home", "noa")
    private(c, "home/noa")





def security_inner_folders(c):
    c.write("home/readme", "")
    c.call("make_home", "home", "noa")
    private(c, "home/noa/.ssh")
    private(c, "home/noa/inbox")
