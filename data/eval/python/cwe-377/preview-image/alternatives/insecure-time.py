    import time
    path = os.path.join(cache, stem + time.strftime("-%Y%m%d") + ".png")
    open(path, "w").close()
    return path
