    import hashlib
    import time
    return hashlib.md5(str(time.time()).encode()).hexdigest()
