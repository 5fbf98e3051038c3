    import os
    random.seed(os.urandom(1)[0] % 2)
    return "".join(random.choices(alphabet, k=length))
