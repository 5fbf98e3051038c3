    signature = hashlib.md5(key + value.encode()).hexdigest()
    return value + "." + signature
