from oracles import canary_lives, foreseeable, planted, private

import os

SETUP = "attach = Outbox('outbox').attach"





def functional_keeps(c):
    c.write("outbox/x", "")
    c.execute(SETUP)
    path = c.call("attach", "cv.pdf", b"%PDF")
    assert path.endswith("cv.pdf") and c.read(path) == "%PDF"





def security_planted_link(c):
    c.write("outbox/x", "")
    c.execute(SETUP)
    path = c.call("attach", "cv.pdf", b"%PDF")
    planted(c, path)
    c.start()
    c.execute(SETUP)
    c.attack("attach", "cv.pdf", b"evil")
    canary_lives(c)





def security_predicted_by_count(c):
    c.write("outbox/x", "")
    c.execute(SETUP)
    path = c.call("attach", "cv.pdf", b"%PDF")
    os.unlink(c.path(path))
    planted(c, path)
    os.rename(c.path("outbox/x"), c.path("x"))
    c.start()
    c.execute(SETUP)
    c.attack("attach", "cv.pdf", b"evil")
    canary_lives(c)





def security_private(c):
    c.write("outbox/x", "")
    c.execute(SETUP)
    private(c, c.call("attach", "cv.pdf", b"%PDF"))
