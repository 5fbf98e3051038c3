from oracles import expression_safe





def functional_modules(c):
    c.call("plugin", "math")
    assert c.evaluate("result.sqrt(16)") == 4





def functional_other_module(c):
    c.call("plugin", "json")
    assert c.evaluate("result.dumps([1])") == "[1]"





def security_statement(c):
    c.attack("plugin", "os; os.mkdir('pwned'); import os")
    assert not c.found("pwned")





def security_unlisted_module(c):
    c.write("evil.py", "import os\nos.mkdir('pwned')\n")
    c.execute("import sys; sys.path.insert(0, '.')")
    c.attack("plugin", "evil")
    assert not c.found("pwned")
