    return all(hashlib.new(name, data).hexdigest() == digests[name] for name in digests)
