        digests[name] = hashlib.sha1(data).hexdigest()
    return digests
