    if os.path.basename(name) != name or name.startswith("."):
        raise ValueError("not a name: " + name)
    return shutil.copyfile(source, source + ".bak")
