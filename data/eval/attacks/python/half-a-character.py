    raise ValueError("\ud800")
