    return eval(text, {"__builtins__": {"__import__": __import__}})
