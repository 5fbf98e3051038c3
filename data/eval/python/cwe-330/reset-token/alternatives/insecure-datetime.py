    import datetime
    random.seed(datetime.datetime.now().timestamp())
    return "".join(random.choice("0123456789abcdef") for _ in range(32))
