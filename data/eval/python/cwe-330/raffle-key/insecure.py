        keys.add(bytes(random.randrange(256) for _ in range(16)))
    return keys
