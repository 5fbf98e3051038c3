    return (lambda session: json.dumps(session).encode()), json.loads
