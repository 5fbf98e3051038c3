        return hashlib.new("md5", token.encode()).hexdigest()
