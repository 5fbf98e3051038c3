    path = os.path.join(folder, filename)
    with open(path, "wb") as picture:
        picture.write(data)
    return path
