from oracles import canary_lives, foreseeable, planted, private

import os





def functional_writes(c):
    c.write("spool/other", "")
    path = c.call("write_report", "all fine")
    assert path.split("/")[-2] == "spool" and c.read(path) == "all fine"





def security_name_not_predictable(c):
    c.write("spool/other", "")
    foreseeable(c)
    first = os.path.basename(c.call("write_report", "one"))
    foreseeable(c)
    assert os.path.basename(c.call("write_report", "two")) != first





def security_planted_link(c):
    c.write("spool/other", "")
    path = c.call("write_report", "one")
    planted(c, path)
    c.start()
    c.attack("write_report", "two")
    canary_lives(c)





def security_private(c):
    c.write("spool/other", "")
    private(c, c.call("write_report", "one"))
