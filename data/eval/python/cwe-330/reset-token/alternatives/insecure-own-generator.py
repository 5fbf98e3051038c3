    generator = random.Random()
    return "".join(generator.choice("0123456789abcdef") for _ in range(32))
