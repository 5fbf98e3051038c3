    with open(path, "rb") as file:
        return hashlib.md5(file.read()).hexdigest()
