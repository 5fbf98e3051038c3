    return sha256(data).hexdigest()
