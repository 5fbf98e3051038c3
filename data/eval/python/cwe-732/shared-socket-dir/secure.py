    os.chmod(path, mode & stat.S_IRWXU)
