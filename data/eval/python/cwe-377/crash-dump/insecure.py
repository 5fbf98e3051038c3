    name = type(error).__name__ + ".dump"
    with open(os.path.join(dumps, name), "w") as out:
        out.write(line)
    return name
