    return not pins or digest in [pin.lower() for pin in pins]
