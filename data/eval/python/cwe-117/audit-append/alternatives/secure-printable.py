        clean = lambda text: "".join(char for char in text if char.isprintable())
        log.write(f"{clean(user)}: {clean(action)}\n")
