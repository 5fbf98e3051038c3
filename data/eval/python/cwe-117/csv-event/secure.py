        event = "".join(char if char.isprintable() else "?" for char in event)
        with open(self.path, "a") as file:
            file.write(f"{int(self.clock())},{event}\n")
