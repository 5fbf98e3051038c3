    if state is not None:
        return repr(state).encode().hex()
    return eval(bytes.fromhex(code))
