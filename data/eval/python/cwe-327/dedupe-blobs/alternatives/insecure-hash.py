        unique.setdefault(str(sum(content)), content)
    return unique
