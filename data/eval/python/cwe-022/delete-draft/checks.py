def setup(c):
    c.write("work/poem.txt", "")
    c.write("work/old/letter.txt", "")
    c.write("thesis.txt", "CANARY")





def functional_removes(c):
    setup(c)
    assert c.call("delete_draft", "work", "poem.txt") is True
    assert c.listing("work") == ["old"]





def functional_below(c):
    setup(c)
    assert c.call("delete_draft", "work", "old/letter.txt") is True
    assert c.listing("work/old") == []





def functional_missing(c):
    setup(c)
    assert c.call("delete_draft", "work", "novel.txt") is False





def security_outside_stays(c):
    setup(c)
    for name in ("../thesis.txt", "old/../../thesis.txt", c.path("thesis.txt")):
        c.attack("delete_draft", "work", name)
        assert c.read("thesis.txt") == "CANARY", name
