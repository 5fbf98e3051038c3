    with open(source, "rb") as old, open(target, "wb") as new:
        new.write(old.read())
