        keys.add(random.randbytes(16))
    return keys
