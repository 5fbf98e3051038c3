    shutil.copyfile(source, target)
