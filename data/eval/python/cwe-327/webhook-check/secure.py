                   hashlib.sha256)
    return header_prefix + mac.hexdigest()
