    return hashlib.scrypt(password.encode(), salt=salt, n=4096, r=8, p=1).hex()
