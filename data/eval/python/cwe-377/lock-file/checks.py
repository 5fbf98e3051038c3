from oracles import canary_lives, foreseeable, planted, private

import os





def functional_takes(c):
    assert c.call("take_lock", "db.lock") is True
    assert c.read("db.lock").strip() == str(c.evaluate("__import__('os').getpid()"))





def functional_held(c):
    c.write("db.lock", "1")
    assert c.call("take_lock", "db.lock") is False and c.read("db.lock") == "1"





def security_dangling_link(c):
    # os.path.exists() says no for a link whose target is missing; writing through it makes the target.
    os.symlink(c.path("made-by-attack"), c.path("db.lock"))
    c.attack("take_lock", "db.lock")
    assert not c.exists("made-by-attack")
