    nonce = base64.b64encode(random.randbytes(16)).decode()
    return {**headers, "X-Nonce": nonce}
