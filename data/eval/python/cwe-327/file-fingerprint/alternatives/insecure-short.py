    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()[:16]
