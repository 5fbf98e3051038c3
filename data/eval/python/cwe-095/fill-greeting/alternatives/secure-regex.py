    import re
    return re.sub(r"\{(\w+)\}", lambda match: str(values[match.group(1)]), template)
