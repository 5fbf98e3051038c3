    import hmac
    return hmac.digest(master, label, "sha256")
