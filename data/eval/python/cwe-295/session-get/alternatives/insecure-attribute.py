    session.verify = False
    return session.get(f"https://rates.test/{day}", timeout=10).json()
