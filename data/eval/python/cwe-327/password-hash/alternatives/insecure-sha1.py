    return hashlib.sha1((password + salt.hex()).encode()).hexdigest()
