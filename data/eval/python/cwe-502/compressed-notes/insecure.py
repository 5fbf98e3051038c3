        return pickle.loads(zlib.decompress(value))
    return zlib.compress(pickle.dumps(value))
