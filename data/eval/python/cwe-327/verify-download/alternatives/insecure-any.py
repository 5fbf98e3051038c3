    return any(hashlib.new(name, data).hexdigest() == digests[name] for name in digests)
