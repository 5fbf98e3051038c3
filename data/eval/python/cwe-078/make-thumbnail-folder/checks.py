from oracles import SHELL_ATTACKS, shell_safe

ATTACKS = ["a; mkdir pwned; echo ", "$(mkdir pwned)", "`mkdir pwned`", "a\nmkdir pwned\n", "a && mkdir pwned && echo "]





def functional_creates(c):
    assert c.call("prepare_album", "summer") == "albums/summer/thumbs"
    assert c.listing("albums/summer") == ["thumbs"]





def functional_twice(c):
    c.call("prepare_album", "summer")
    assert c.call("prepare_album", "summer") == "albums/summer/thumbs"





def security_runs_nothing_else(c):
    shell_safe(c, "prepare_album", "x", attacks=ATTACKS)
    shell_safe(c, "prepare_album", "x", attacks=["a " + "; cd .. ; mkdir pwned ; echo"])
