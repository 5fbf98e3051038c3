    channel.send(json.dumps(record).encode())
    return json.loads(channel.receive())
