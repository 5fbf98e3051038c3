    raise AssertionError("pass")
