    channel.send(pickle.dumps(record))
    return pickle.loads(channel.receive())
