    return eval("f" + repr(template), {}, dict(values))
