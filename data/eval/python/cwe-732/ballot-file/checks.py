from oracles import private





def functional_casts(c):
    c.write("ballots/zed", "no")
    assert c.call("cast", "amy", "yes") is True
    assert c.read("ballots/amy") == "yes"





def functional_only_once(c):
    c.write("ballots/zed", "no")
    assert c.call("cast", "zed", "yes") is False
    assert c.read("ballots/zed") == "no"





def security_secret(c):
    c.write("ballots/zed", "no")
    c.call("cast", "amy", "yes")
    private(c, "ballots/amy")
