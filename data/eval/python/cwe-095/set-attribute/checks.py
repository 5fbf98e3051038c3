from oracles import expression_safe

SETUP = "command = Lamp().command"





def functional_color(c):
    c.execute(SETUP)
    assert c.call("command", "color=red") == ["red", "off"]





def functional_power(c):
    c.execute(SETUP)
    assert c.call("command", "power=on") == ["white", "on"]





def security_value(c):
    c.execute(SETUP)
    c.attack("command", "color=red'; __import__('os').mkdir('pwned'); self.x = '")
    c.attack("command", "color=' + str(__import__('os').mkdir('pwned')) + '")
    assert not c.found("pwned")





def security_field(c):
    c.execute(SETUP)
    c.attack("command", "color; __import__('os').mkdir('pwned'); self.x=1")
    assert not c.found("pwned")
