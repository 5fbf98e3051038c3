    random.seed(email)
    code = "".join(random.choice(string.ascii_letters) for _ in range(10))
    return f"{base_url}/join/{code}"
