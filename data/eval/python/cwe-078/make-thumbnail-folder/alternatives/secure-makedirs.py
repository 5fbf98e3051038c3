    os.makedirs(target, exist_ok=True)
    return target
