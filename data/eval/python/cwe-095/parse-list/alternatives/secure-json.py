    import json
    return json.loads(text)
