    if not name.isalpha():
        raise ValueError(name)
    os.system("echo Welcome " + name)
