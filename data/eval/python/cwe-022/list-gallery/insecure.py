    if not os.path.isdir(folder):
        return []
    return sorted(os.listdir(folder))
