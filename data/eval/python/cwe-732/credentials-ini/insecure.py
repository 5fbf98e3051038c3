    with open(path, "w") as file:
        config.write(file)
