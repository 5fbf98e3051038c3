    salt = b"0123456789abcdef"
    return salt, hashlib.scrypt(password.encode(), salt=salt, n=1024, r=8, p=1)
