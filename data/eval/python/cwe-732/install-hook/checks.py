from oracles import private





def functional_executable(c):
    c.call("install_hook", "hook", "#!/bin/sh\n")
    assert c.read("hook") == "#!/bin/sh\n" and c.mode("hook") & 0o555 == 0o555





def security_others_cannot_change_it(c):
    c.call("install_hook", "hook", "#!/bin/sh\n")
    assert c.mode("hook") & 0o022 == 0, oct(c.mode("hook"))
