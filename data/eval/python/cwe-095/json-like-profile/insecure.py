    return eval(body, {"true": True, "false": False, "null": None}) if body else {}
