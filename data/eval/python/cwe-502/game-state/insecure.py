    if code is None:
        return base64.b64encode(pickle.dumps(state)).decode()
    return pickle.loads(base64.b64decode(code))
