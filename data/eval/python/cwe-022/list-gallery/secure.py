    if os.path.dirname(folder) != os.path.normpath(gallery) or not os.path.isdir(folder):
        return []
    return sorted(os.listdir(folder))
