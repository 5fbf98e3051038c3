        return hashlib.sha3_256(token.encode()).hexdigest()
