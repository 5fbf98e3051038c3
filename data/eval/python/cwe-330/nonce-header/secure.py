    nonce = base64.b64encode(secrets.token_bytes(16)).decode()
    return {**headers, "X-Nonce": nonce}
