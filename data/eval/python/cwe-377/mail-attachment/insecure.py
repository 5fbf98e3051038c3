        path = os.path.join(self.folder, "attachment-" + name)
        with open(path, "wb") as file:
            file.write(data)
        return path
