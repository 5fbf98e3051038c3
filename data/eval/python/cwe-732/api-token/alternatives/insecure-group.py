    with open(path, "w") as file:
        file.write(token)
    os.chmod(path, 0o640)
