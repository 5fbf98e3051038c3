from oracles import canary_lives, foreseeable, planted, private

import os





def functional_sorts(c):
    c.write("scratch/x", "")
    assert c.call("sort_lines", ["pear", "apple", "fig"], "scratch") == ["apple", "fig", "pear"]
    assert c.listing("scratch") == ["x"]





def functional_no_lines(c):
    c.write("scratch/x", "")
    assert c.call("sort_lines", [], "scratch") == []





def security_planted_link(c):
    c.write("scratch/x", "")
    c.execute("import sys; opened = []")
    c.execute("sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == 'open' else None)")
    c.call("sort_lines", ["one"], "scratch")
    for name in c.evaluate("opened"):
        if "scratch/" in name:
            planted(c, "scratch/" + os.path.basename(name))
    c.start()
    c.write("canary.txt", "precious")
    c.attack("sort_lines", ["two"], "scratch")
    canary_lives(c)
