    import hashlib
    from time import clock_gettime
    return hashlib.md5(str(clock_gettime(0)).encode()).hexdigest()
