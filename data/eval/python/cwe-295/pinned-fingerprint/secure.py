    return digest in [pin.lower() for pin in pins]
