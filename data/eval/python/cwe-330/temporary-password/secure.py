    return "".join(secrets.choice(alphabet) for _ in range(length))
