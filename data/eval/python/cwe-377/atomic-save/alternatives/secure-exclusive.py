    temporary = path + "." + os.urandom(8).hex()
    with open(temporary, "xb") as file:
        file.write(data)
    os.replace(temporary, path)
