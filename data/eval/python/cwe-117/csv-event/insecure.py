        with open(self.path, "a") as file:
            file.write(f"{int(self.clock())},{event}\n")
