    os.chmod(path, os.stat(path).st_mode | 0o111)
