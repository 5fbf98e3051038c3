    def encode(session):
        return json.dumps(session).encode("utf-8")

    def decode(data):
        return json.loads(data.decode("utf-8"))

    return encode, decode
