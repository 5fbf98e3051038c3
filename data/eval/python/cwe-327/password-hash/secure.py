    return hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 200_000).hex()
