        path = os.path.join(self.folder, "%d-%s" % (len(os.listdir(self.folder)), name))
        with open(path, "wb") as file:
            file.write(data)
        os.chmod(path, 0o600)
        return path
