    return f"{random.randrange(1000000):06d}"
