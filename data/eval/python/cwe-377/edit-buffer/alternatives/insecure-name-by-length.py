    path = os.path.join(folder, "edit-%d" % len(text))
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, 0o600)
    editor(path)
    with open(path) as file:
        result = file.read()
    os.unlink(path)
    return result
