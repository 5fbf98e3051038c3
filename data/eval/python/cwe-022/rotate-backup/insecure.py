    return shutil.copyfile(source, source + ".bak")
