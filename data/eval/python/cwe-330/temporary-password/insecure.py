    return "".join(random.choice(alphabet) for _ in range(length))
