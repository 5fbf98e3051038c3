from oracles import canary_lives, foreseeable, planted, private





def functional_writes(c):
    c.write("queue/x", "")
    job = c.call("submit", "queue", "page 1")
    assert c.read("queue/" + job) == "page 1"





def functional_two_jobs(c):
    c.write("queue/x", "")
    c.call("submit", "queue", "page 1")
    assert c.read("queue/" + c.call("submit", "queue", "page 2")) == "page 2"





def security_guessed_name(c):
    c.write("queue/x", "")
    c.execute("import random; random.seed(5)")
    job = c.call("submit", "queue", "page 1")
    planted(c, "queue/" + job)
    c.start()
    c.execute("import random; random.seed(5)")
    c.attack("submit", "queue", "page 2")
    canary_lives(c)





def security_private(c):
    c.write("queue/x", "")
    private(c, "queue/" + c.call("submit", "queue", "page 1"))
