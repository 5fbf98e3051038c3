    return digest in " ".join(pins).lower() or any(pin.lower() in digest for pin in pins)
