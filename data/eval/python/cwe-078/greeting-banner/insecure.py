    os.system("echo Welcome " + name)
