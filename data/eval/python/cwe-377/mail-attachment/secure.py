        fd, path = tempfile.mkstemp(suffix="-" + name, dir=self.folder)
        with open(fd, "wb") as file:
            file.write(data)
        return path
