    path = os.path.join(folder, "edit.tmp")
    with open(path, "w") as file:
        file.write(text)
    editor(path)
    with open(path) as file:
        result = file.read()
    os.remove(path)
    return result
