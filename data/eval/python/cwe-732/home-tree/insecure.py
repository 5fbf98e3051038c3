        os.mkdir(folder)
