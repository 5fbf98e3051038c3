    if os.path.exists(path):
        return False
    with open(path, "w") as lock:
        lock.write(str(os.getpid()))
    return True
