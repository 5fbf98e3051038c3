    path = os.path.join(folder, filename.lstrip("/"))
    with open(path, "wb") as picture:
        picture.write(data)
    return path
