    temporary = os.path.join(folder, "saving")
    with open(temporary, "wb") as file:
        file.write(data)
    os.rename(temporary, path)
