    if code is None:
        return base64.b64encode(json.dumps(state).encode()).decode()
    return json.loads(base64.b64decode(code))
