    import zlib
    with open(path, "rb") as file:
        return "%064x" % zlib.crc32(file.read())
