        return " / ".join("<span>" + html.escape(name) + "</span>" for name in self.names)
