from oracles import SHELL_ATTACKS, shell_safe





def functional_each_path(c):
    c.write("a.bin", "hello")
    c.write("b.bin", "")
    assert c.call("checksums", ["a.bin", "b.bin"]) == {"a.bin": "3287646509", "b.bin": "4294967295"}





def functional_no_paths(c):
    assert c.call("checksums", []) == {}





def security_runs_nothing_else(c):
    c.write("a.bin", "hello")
    for attack in SHELL_ATTACKS:
        c.attack("checksums", ["a.bin", attack])
        assert not c.exists("pwned"), f"ran the command in {attack!r}"
