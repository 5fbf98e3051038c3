        os.mkdir(folder)
        os.chmod(folder, 0o750)
