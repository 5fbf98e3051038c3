    signature = hmac.new(key, value.encode(), hashlib.sha256).hexdigest()
    return value + "." + signature
