        return json.loads(zlib.decompress(value))
    return zlib.compress(json.dumps(value).encode())
