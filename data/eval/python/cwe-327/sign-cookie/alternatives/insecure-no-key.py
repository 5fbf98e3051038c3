    return value + "." + hashlib.sha256(value.encode()).hexdigest()
