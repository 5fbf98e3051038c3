    import hmac
    return any(hmac.compare_digest(digest, pin.lower()) for pin in pins)
