    fd, path = tempfile.mkstemp(dir=folder)
    os.write(fd, text.encode())
    os.close(fd)
    editor(path)
    with open(path) as file:
        result = file.read()
    os.remove(path)
    return result
