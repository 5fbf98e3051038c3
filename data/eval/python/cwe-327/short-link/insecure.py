        "md5", text.encode("utf-8")).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
