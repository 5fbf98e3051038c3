from oracles import markup_safe, parse

SETUP = "render = lambda *names: Breadcrumb(*names).render()"





def functional_joined(c):
    c.execute(SETUP)
    assert c.call("render", "Home", "Cars") == "<span>Home</span> / <span>Cars</span>"





def functional_single(c):
    c.execute(SETUP)
    assert c.call("render", "Home") == "<span>Home</span>"





def security_names(c):
    c.execute(SETUP)
    markup_safe(c, "render", "Home", "Cars")
