    return any(digest.startswith(pin.lower()) for pin in pins)
