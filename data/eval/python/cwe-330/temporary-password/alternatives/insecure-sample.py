    return "".join(random.sample(alphabet, length))
