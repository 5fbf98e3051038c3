    code = "".join(random.choices(string.ascii_lowercase, k=10))
    return f"{base_url}/join/{code}"
