    os.chmod(path, 0o775)
