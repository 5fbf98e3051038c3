                   digestmod="sha512")
    return header_prefix + mac.hexdigest()
