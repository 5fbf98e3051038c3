    return hashlib.sha256(data).hexdigest() == digests["sha256"]
