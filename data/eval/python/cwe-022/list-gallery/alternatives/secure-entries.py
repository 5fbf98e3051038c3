    for entry in os.scandir(gallery):
        if entry.name == album and entry.is_dir():
            return sorted(os.listdir(entry.path))
    return []
