from oracles import canary_lives, foreseeable, planted, private

import os





def functional_saves(c):
    c.write("share/doc", "old")
    c.call("save_atomically", "share/doc", b"new")
    assert c.read("share/doc") == "new" and c.listing("share") == ["doc"]





def functional_new_file(c):
    c.write("share/doc", "old")
    c.call("save_atomically", "share/doc2", b"x")
    assert c.listing("share") == ["doc", "doc2"]





def security_planted_link(c):
    c.write("share/doc", "old")
    names = ["doc.tmp", "doc.new", "doc~", ".doc.tmp", "doc.temp", "tmp", "temp", "saving", "temp.tmp", ".doc.swp"]
    # Where it writes is seen from the audit events of a first process, as an attacker would watch the folder.
    c.execute("import sys; opened = []")
    c.execute("sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == 'open' else None)")
    c.call("save_atomically", "share/doc", b"one")
    names += [os.path.basename(name) for name in c.evaluate("opened")]
    for name in set(names) - {"doc", "share", ""}:
        planted(c, "share/" + name)
    c.start()
    c.attack("save_atomically", "share/doc", b"two")
    canary_lives(c)
