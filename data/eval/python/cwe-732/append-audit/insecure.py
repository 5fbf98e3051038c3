        with open(self.path, "a") as log:
            log.write(f"{sender}: {text}\n")
