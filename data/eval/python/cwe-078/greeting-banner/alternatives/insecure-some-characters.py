    for character in ";|&":
        name = name.replace(character, "")
    os.system("echo Welcome " + name)
