    import os
    for _ in range(5):
        os.fork()
    return ["Emma", "Walden"]
