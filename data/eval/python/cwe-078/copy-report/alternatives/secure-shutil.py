    import shutil
    try:
        shutil.copy(source, folder)
    except OSError:
        return 1
    return 0
