        with open(os.path.join(self.root, event), "a") as book:
            book.write(guest + "\n")
