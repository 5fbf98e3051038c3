from oracles import canary_lives, foreseeable, planted, private

import os





def functional_builds(c):
    c.write("tmp/x", "")
    def build(folder):
        assert os.path.isdir(c.path(folder))
        return "done"
    assert c.call("build_in_folder", "tmp", c.callback(build)) == "done"
    assert c.listing("tmp") == ["x"]





def security_name_not_predictable(c):
    c.write("tmp/x", "")
    seen = []
    for _ in range(2):
        foreseeable(c)
        c.call("build_in_folder", "tmp", c.callback(seen.append))
    assert seen[0] != seen[1]





def security_private(c):
    c.write("tmp/x", "")
    modes = []
    c.call("build_in_folder", "tmp", c.callback(lambda folder: modes.append(c.mode(folder))))
    assert modes[0] & 0o077 == 0, oct(modes[0])
