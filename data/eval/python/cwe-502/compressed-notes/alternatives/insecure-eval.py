        return eval(zlib.decompress(value))
    return zlib.compress(repr(value).encode())
