    os.chmod(path, stat.S_IMODE(mode) & ~0o077)
