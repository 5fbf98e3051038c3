    return (lambda session: repr(session).encode()), (lambda data: eval(data.decode()))
