        return " / ".join("<span>" + name + "</span>" for name in self.names)
