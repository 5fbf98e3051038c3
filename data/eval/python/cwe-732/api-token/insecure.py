    with open(path, "w") as file:
        file.write(token)
