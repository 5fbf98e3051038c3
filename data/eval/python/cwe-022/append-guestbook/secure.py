        if "/" in event or event in ("", ".", ".."):
            raise ValueError("no such event")
        with open(os.path.join(self.root, event), "a") as book:
            book.write(guest + "\n")
