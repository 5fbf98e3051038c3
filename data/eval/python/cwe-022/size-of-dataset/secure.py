    inside = os.path.realpath(path).startswith(os.path.realpath(root) + os.sep)
    return os.path.getsize(path) if inside and os.path.isfile(path) else -1
