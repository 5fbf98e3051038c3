        unique.setdefault(hashlib.sha256(content).hexdigest(), content)
    return unique
