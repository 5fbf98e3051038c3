    path = os.path.join(folder, os.path.basename(filename))
    with open(path, "wb") as picture:
        picture.write(data)
    return path
