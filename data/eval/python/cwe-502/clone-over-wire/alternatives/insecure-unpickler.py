    buffer = io.BytesIO()
    pickle.Pickler(buffer).dump(record)
    channel.send(buffer.getvalue())
    return pickle.Unpickler(io.BytesIO(channel.receive())).load()
