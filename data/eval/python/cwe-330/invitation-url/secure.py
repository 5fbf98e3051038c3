    code = "".join(secrets.choice(string.ascii_lowercase) for _ in range(10))
    return f"{base_url}/join/{code}"
