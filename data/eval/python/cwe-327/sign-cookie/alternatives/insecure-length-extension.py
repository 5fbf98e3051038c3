    return value + "." + hashlib.sha256(key + value.encode()).hexdigest()
