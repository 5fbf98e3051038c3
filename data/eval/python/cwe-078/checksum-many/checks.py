from oracles import SHELL_ATTACKS, marker_safe





def functional_each_path(c):
    c.write("a.bin", "hello")
    c.write("b.bin", "")
    assert c.call("checksums", ["a.bin", "b.bin"]) == {"a.bin": "3287646509", "b.bin": "4294967295"}





def functional_no_paths(c):
    assert c.call("checksums", []) == {}





def security_runs_nothing_else(c):
    c.write("a.bin", "hello")
    marker_safe(c, "checksums", lambda attack: [["a.bin", attack]], SHELL_ATTACKS)
