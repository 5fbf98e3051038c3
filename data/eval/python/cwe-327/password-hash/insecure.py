    return hashlib.md5(salt + password.encode()).hexdigest()
