        digests[name] = hashlib.sha512(data).hexdigest()
    return digests
