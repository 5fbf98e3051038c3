    path = os.path.join(SPOOL, "report.txt")
    with open(path, "w") as file:
        file.write(text)
    return path
