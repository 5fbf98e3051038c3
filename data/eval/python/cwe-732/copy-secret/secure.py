    shutil.copy(source, target)
