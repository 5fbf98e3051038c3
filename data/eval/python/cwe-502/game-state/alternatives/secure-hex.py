    if state is not None:
        return json.dumps(state).encode().hex()
    return json.loads(bytes.fromhex(code))
