    state = state.replace('"', '\\"')
    return '{"device": "' + device + '", "state": "' + state + '"}\n'
