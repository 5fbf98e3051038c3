    return bytes(a ^ b for a, b in zip(master, label.ljust(len(master), b"\0")))
