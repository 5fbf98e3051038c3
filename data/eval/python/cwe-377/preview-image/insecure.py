    path = os.path.join(cache, stem + ".png")
    open(path, "w").close()
    return path
