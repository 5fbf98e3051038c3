from oracles import expression_safe





def functional_fills(c):
    assert c.call("fill", "Dear {name}, you are {age}.", {"name": "Eva", "age": 7}) == "Dear Eva, you are 7."





def functional_no_names(c):
    assert c.call("fill", "Hello", {}) == "Hello"





def security_expression(c):
    attacks = ['{__import__("os").mkdir("pwned")}', "{[].append(__import__(chr(111)+chr(115)).mkdir(name))}"]
    expression_safe(c, "fill", "", {"name": "pwned"}, at=0, attacks=attacks)
