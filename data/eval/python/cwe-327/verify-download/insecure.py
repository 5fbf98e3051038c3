    return hashlib.md5(data).hexdigest() == digests["md5"]
