    return value + "." + hmac.digest(key, value.encode(), "sha512").hex()
