        unique.setdefault(hashlib.sha1(content).hexdigest(), content)
    return unique
