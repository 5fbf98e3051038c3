    return os.path.getsize(path) if os.path.isfile(path) else -1
