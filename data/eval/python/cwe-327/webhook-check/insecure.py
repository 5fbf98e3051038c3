                   hashlib.md5)
    return header_prefix + mac.hexdigest()
